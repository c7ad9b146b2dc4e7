"""Gaussians of whole images, fitted by scikit-learn: a mixture as a prior, and one of low rank."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from gradleak.data import Images, Source
from gradleak.identity import given, made
from gradleak.priors.prior import Prior
from gradleak.scales import (
    WEIGHT,
    Scale,
    check_kind,
    check_number,
    check_scale,
    check_whole,
    per_attack,
)


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

    def __post_init__(self) -> None:
        check_kind("mixture", self.mixture, nn.Module)
        check_kind("name", self.name, str)
        check_scale("weight", self.weight, WEIGHT)

    @classmethod
    def fit(
        cls, images: Images, components: int, *, blur: float = 0.1, seed: int = 0
    ) -> GaussianMixture:
        """The likeliest such mixture of images, each with noise of deviation blur.

        Without it a covariance has no inverse: images fill few of the directions that pixels have.
        """
        from sklearn.mixture import GaussianMixture as Fitted  # it takes seconds to import

        _check_count("components", components, len(images))
        check_number("blur", blur, "[1e-6, 1e18]", "a covariance in float64 has no inverse below")
        check_whole("seed", seed)
        check_number("seed", seed, "[0, 4294967295]", "scikit-learn takes no larger one")
        found = Fitted(components, reg_covar=blur**2, random_state=seed, max_iter=50, tol=0.1)
        try:
            found.fit(images.x.flatten(1).double().cpu().numpy())
        except ValueError as error:
            raise ValueError(
                f"{components} components with blur {blur:g} cannot be fitted to {len(images)} "
                f"images; use more blur, fewer components or more images: {error}"
            ) from error
        chances, means = torch.tensor(found.weights_), torch.tensor(found.means_)
        roots = torch.linalg.cholesky(torch.tensor(found.covariances_))
        mixture = Mixture(chances.float(), means.float(), roots.float(), images.source)
        how = given(cls.fit, images.digests, components, blur=blur, seed=seed)
        return cls(made(mixture, cls, how), f"{components} of {images.name}")

    def log_prob(self, x: Tensor) -> Tensor:
        """The weighted log-density of each attack's images, (N,); x (N, ..., C, H, W)."""
        each = self.mixture(x.flatten(0, -4).flatten(1))
        total = each.view(len(x), -1).sum(1)
        return per_attack(self.weight, total) * total


class LowRankGaussian(nn.Module):
    """x = mean + sum_k z_k directions[k] + residual; z standard normal, residual of `variance`.

    Probabilistic principal components: Tipping & Bishop 1999. mean (C, H, W), directions
    (K, C, H, W). trained_on: which images it was fitted to, if known.
    """

    def __init__(
        self, mean: Tensor, directions: Tensor, variance: float, trained_on: Source | None = None
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

        _check_count("rank", rank, min(len(images), images.x[0].numel()) - 1)
        pca = PCA(rank, svd_solver="randomized", random_state=0)
        pca.fit(images.x.flatten(1).double().cpu().numpy())
        variances, residual = torch.tensor(pca.explained_variance_), float(pca.noise_variance_)
        scale = (variances - residual).clamp_min(0).sqrt()
        directions = torch.tensor(pca.components_) * scale.unsqueeze(1)
        mean = torch.tensor(pca.mean_).view(images.shape)
        found = cls(mean, directions.view(rank, *images.shape), residual, images.source)
        return made(found, cls, images.digests, rank)

    def extra_repr(self) -> str:
        """What its repr tells."""
        seen = self.trained_on
        fitted = f", fitted to {len(seen.index)} of {seen.name}" if seen else ""
        return f"rank {len(self.directions)}, variance {float(self.variance):.4g}{fitted}"


def _check_count(name: str, count: int, most: int) -> None:
    check_whole(name, count, 1)
    if count > most:
        raise ValueError(f"{name} must be at most {most} for so many images, got {count}")
