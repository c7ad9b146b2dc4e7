"""A Gaussian mixture of whole images as a prior, fitted by scikit-learn: the classical midpoint."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from gradleak.data import Images, Source
from gradleak.identity import given, made
from gradleak.priors.prior import Prior
from gradleak.scales import Scale


class Mixture(nn.Module):
    """K Gaussians of P pixels with full covariance.

    chances (K,), means (K, P), roots (K, P, P): lower triangles with root @ root.T = covariance.
    trained_on: which images it was fitted to, if known.
    """

    def __init__(
        self, chances: Tensor, means: Tensor, roots: Tensor, trained_on: Source | None = None
    ) -> None:
        super().__init__()
        self.trained_on = trained_on
        self.register_buffer("chances", chances)
        self.register_buffer("means", means)
        self.register_buffer("roots", roots)

    def forward(self, x: Tensor) -> Tensor:
        """log p(x), (N,), of flat images x (N, P)."""
        if x.shape[1] != self.means.shape[1]:
            raise ValueError(
                f"this mixture was fitted to images of {self.means.shape[1]} pixels, these have "
                f"{x.shape[1]}"
            )
        which = Categorical(self.chances, validate_args=False)
        parts = MultivariateNormal(self.means, scale_tril=self.roots, validate_args=False)
        return MixtureSameFamily(which, parts, validate_args=False).log_prob(x)


@dataclass(frozen=True, eq=False)
class GaussianMixture(Prior):
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
        covariances = torch.tensor(found.covariances_)
        mixture = Mixture(
            torch.tensor(found.weights_).float(),
            torch.tensor(found.means_).float(),
            torch.linalg.cholesky(covariances).float(),
            images.source,
        )
        how = given(cls.fit, images.digests, components, blur=blur, seed=seed)
        return cls(made(mixture, cls, how), f"{components} of {images.name}")

    @property
    def sources(self) -> list[Source]:
        """Which images it was fitted to, if known."""
        return [] if self.mixture.trained_on is None else [self.mixture.trained_on]

    def log_prob(self, x: Tensor) -> Tensor:
        """The weighted log-density of each attack's images, (N,); x (N, ..., C, H, W)."""
        each = self.mixture(x.flatten(0, -4).flatten(1))
        return self.weight * each.view(len(x), -1).sum(1)
