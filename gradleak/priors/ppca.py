"""A Gaussian of images that varies along few directions: probabilistic principal components.

Tipping & Bishop 1999, fitted by scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LowRankGaussian:
    """x = mean + sum_k z_k directions[k] + residual; z standard normal, residual of `variance`.

    mean (C, H, W), directions (K, C, H, W).
    """

    mean: Tensor
    directions: Tensor
    variance: float

    @classmethod
    def fit(cls, x: Tensor, rank: int) -> LowRankGaussian:
        """The likeliest such Gaussian of images x (N, C, H, W); rank is K < N."""
        from sklearn.decomposition import PCA  # it takes seconds to import

        shape = x.shape[1:]
        pca = PCA(rank, svd_solver="randomized", random_state=0)
        pca.fit(x.flatten(1).double().cpu().numpy())
        variances, residual = torch.tensor(pca.explained_variance_), float(pca.noise_variance_)
        scale = (variances - residual).clamp_min(0).sqrt()
        directions = torch.tensor(pca.components_) * scale.unsqueeze(1)
        mean = torch.tensor(pca.mean_).view(shape)
        return cls(mean, directions.view(rank, *shape), residual)
