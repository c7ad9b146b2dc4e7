"""A Gaussian mixture of whole images as a prior, fitted by scikit-learn: the classical midpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradleak.batches import Scale


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """Images come from one of K Gaussians with full covariance.

    log_chances (K,), means (K, P), whitening (K, P, P) with (x - mean) @ whitening standard normal,
    for P pixels. name: what records call it. weight: of its log-density.
    """

    log_chances: Tensor = field(repr=False)
    means: Tensor = field(repr=False)
    whitening: Tensor = field(repr=False)
    name: str
    weight: Scale = 1.0

    @classmethod
    def fit(
        cls, x: Tensor, components: int, name: str, *, blur: float = 0.1, seed: int = 0
    ) -> GaussianMixture:
        """The likeliest such mixture of images x (N, C, H, W), each with noise of deviation blur.

        Images fill few of the directions that pixels have, so that without blur a covariance would
        have no inverse.
        """
        from sklearn.mixture import GaussianMixture as Fitted  # it takes seconds to import

        found = Fitted(components, reg_covar=blur**2, random_state=seed, max_iter=50, tol=0.1)
        found.fit(x.flatten(1).double().cpu().numpy())
        return cls(
            torch.tensor(found.weights_).log().float(),
            torch.tensor(found.means_).float(),
            torch.tensor(found.precisions_cholesky_).float(),
            name,
        )

    def log_prob(self, x: Tensor) -> Tensor:
        """The weighted log-density of each attack's images, (N,); x (N, ..., C, H, W)."""
        flat = x.flatten(0, -4).flatten(1)
        if flat.shape[1] != self.means.shape[1]:
            raise ValueError(
                f"this mixture was fitted to images of {self.means.shape[1]} pixels, these have "
                f"{flat.shape[1]}"
            )
        white = self.whitening.to(x)
        apart = flat.unsqueeze(0) - self.means.to(x).unsqueeze(1)
        distance = torch.bmm(apart, white).square().sum(2)
        log_det = white.diagonal(dim1=1, dim2=2).log().sum(1)
        constant = self.log_chances.to(x) + log_det - flat.shape[1] / 2 * math.log(2 * math.pi)
        each = torch.logsumexp(constant.unsqueeze(1) - distance / 2, 0)
        return self.weight * each.view(len(x), -1).sum(1)

    def project(self, x: Tensor) -> Tensor:
        """Return x."""
        return x
