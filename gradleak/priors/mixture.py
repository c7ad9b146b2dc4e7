"""A Gaussian mixture of whole images as a prior, fitted by scikit-learn: the classical midpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gradleak.data import Images, Source
from gradleak.scales import Scale


class Mixture(nn.Module):
    """K Gaussians of P pixels with full covariance.

    log_chances (K,), means (K, P), whitening (K, P, P) with (x - mean) @ whitening standard normal.
    trained_on: which images it was fitted to, if known.
    """

    def __init__(
        self,
        log_chances: Tensor,
        means: Tensor,
        whitening: Tensor,
        trained_on: Source | None = None,
    ) -> None:
        super().__init__()
        self.trained_on = trained_on
        self.register_buffer("means", means)
        self.register_buffer("whitening", whitening)
        log_det = whitening.diagonal(dim1=1, dim2=2).log().sum(1)
        constant = log_chances + log_det - means.shape[1] / 2 * math.log(2 * math.pi)
        self.register_buffer("constant", constant)

    def forward(self, x: Tensor) -> Tensor:
        """log p(x), (N,), of flat images x (N, P)."""
        if x.shape[1] != self.means.shape[1]:
            raise ValueError(
                f"this mixture was fitted to images of {self.means.shape[1]} pixels, these have "
                f"{x.shape[1]}"
            )
        apart = x.unsqueeze(0) - self.means.unsqueeze(1)
        distance = torch.bmm(apart, self.whitening).square().sum(2)
        return torch.logsumexp(self.constant.unsqueeze(1) - distance / 2, 0)


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """Images come from one of K Gaussians with full covariance.

    name: what records call it. weight: of its log-density.
    """

    mixture: Mixture = field(repr=False)
    name: str
    weight: Scale = 1.0

    @classmethod
    def fit(
        cls, images: Images, components: int, *, blur: float = 0.1, seed: int = 0
    ) -> GaussianMixture:
        """The likeliest such mixture of images, each with noise of deviation blur.

        Images fill few of the directions that pixels have, so that without blur a covariance would
        have no inverse.
        """
        from sklearn.mixture import GaussianMixture as Fitted  # it takes seconds to import

        found = Fitted(components, reg_covar=blur**2, random_state=seed, max_iter=50, tol=0.1)
        found.fit(images.x.flatten(1).double().cpu().numpy())
        mixture = Mixture(
            torch.tensor(found.weights_).log().float(),
            torch.tensor(found.means_).float(),
            torch.tensor(found.precisions_cholesky_).float(),
            images.source,
        )
        return cls(mixture, f"{components} of {images.name}")

    @property
    def trained_on(self) -> Source | None:
        """Which images it was fitted to, if known."""
        return self.mixture.trained_on

    def log_prob(self, x: Tensor) -> Tensor:
        """The weighted log-density of each attack's images, (N,); x (N, ..., C, H, W)."""
        each = self.mixture(x.flatten(0, -4).flatten(1))
        return self.weight * each.view(len(x), -1).sum(1)

    def project(self, x: Tensor) -> Tensor:
        """Return x."""
        return x
