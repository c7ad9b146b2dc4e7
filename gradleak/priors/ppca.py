"""A Gaussian of images that varies along few directions: probabilistic principal components.

Tipping & Bishop 1999, fitted by scikit-learn.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gradleak.data import Images, Source
from gradleak.identity import made


class LowRankGaussian(nn.Module):
    """x = mean + sum_k z_k directions[k] + residual; z standard normal, residual of `variance`.

    mean (C, H, W), directions (K, C, H, W), variance (). trained_on: which images it was fitted
    to, if known.
    """

    def __init__(
        self,
        mean: Tensor,
        directions: Tensor,
        variance: float | Tensor,
        trained_on: Source | None = None,
    ) -> None:
        super().__init__()
        self.trained_on = trained_on
        self.register_buffer("mean", mean)
        self.register_buffer("directions", directions)
        self.register_buffer("variance", torch.as_tensor(variance, dtype=mean.dtype))

    @classmethod
    def fit(cls, images: Images, rank: int) -> LowRankGaussian:
        """The likeliest such Gaussian of the images, in float64; rank is K, below their number."""
        from sklearn.decomposition import PCA  # it takes seconds to import

        pca = PCA(rank, svd_solver="randomized", random_state=0)
        pca.fit(images.x.flatten(1).double().cpu().numpy())
        variances, residual = torch.tensor(pca.explained_variance_), float(pca.noise_variance_)
        scale = (variances - residual).clamp_min(0).sqrt()
        directions = torch.tensor(pca.components_) * scale.unsqueeze(1)
        mean = torch.tensor(pca.mean_).view(images.shape)
        found = cls(mean, directions.view(rank, *images.shape), residual, images.source)
        return made(found, cls, images.digests, rank)

    @property
    def sources(self) -> list[Source]:
        """Which images it was fitted to, if known."""
        return [] if self.trained_on is None else [self.trained_on]

    def extra_repr(self) -> str:
        """What its repr tells."""
        seen = self.trained_on
        fitted = f", fitted to {len(seen.index)} of {seen.name}" if seen else ""
        return f"rank {len(self.directions)}, variance {float(self.variance):.4g}{fitted}"
