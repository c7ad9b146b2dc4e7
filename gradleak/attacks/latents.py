"""What an attacker holds about the latent of a PRECODE network."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradleak.attacks.analytic import layer_input
from gradleak.attacks.smoothing import Smoothing
from gradleak.client import ServerView
from gradleak.defenses import join, split
from gradleak.gradients import Gradient
from gradleak.models import check_sizes
from gradleak.priors import Flat, Moment, Prior, check_prior
from gradleak.randomness import LATENT, generator
from gradleak.scales import check_number, check_whole


@dataclass(frozen=True)
class Known(Flat):
    """A latent that the adversary takes for certain: a number, or z (N, size) for N clients."""

    z: float | Tensor = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.z, Tensor):
            if not self.z.isfinite().all():
                raise ValueError("z must be finite, it holds nan or inf")
        else:
            check_number("z", self.z, "(-1e18, 1e18)", "or give a tensor (N, size)")

    def project(self, z: Tensor) -> Tensor:
        """The known latent."""
        return torch.as_tensor(self.z).to(z).expand_as(z)


@dataclass(frozen=True)
class ReadOff(Prior):
    """A latent that the adversary reads off each gradient; see `latent`."""

    def given(self, view: ServerView) -> Known:
        """What it is once the gradients are seen."""
        return Known(latent(view.g, view.client.model))


@dataclass(frozen=True)
class StandardNormal(Prior):
    """A latent drawn from N(0, I), to be found."""

    def log_prob(self, z: Tensor) -> Tensor:
        """log density up to a constant, (N,)."""
        return -0.5 * z.square().sum(1)


@dataclass(frozen=True)
class Joint(Prior):
    """A prior of joined vectors: one of images of this shape, one of latents."""

    image: Prior
    latent: Prior
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        check_prior("image", self.image)
        check_prior("latent", self.latent)
        check_sizes("shape", self.shape)

    def given(self, view: ServerView) -> Prior:
        """What it is once the gradients are seen."""
        image = self.image.given(replace(view, shape=self.shape))
        return replace(self, image=image, latent=self.latent.given(view))

    def at(self, moment: Moment) -> Prior:
        """Both at this moment of the climb."""
        image, latent = self.image.at(moment), self.latent.at(moment)
        same = image is self.image and latent is self.latent
        return self if same else replace(self, image=image, latent=latent)

    def rounded(self, corner: float) -> Prior:
        """Both with their corners rounded off."""
        image, latent = self.image.rounded(corner), self.latent.rounded(corner)
        return replace(self, image=image, latent=latent)

    def log_prob(self, joined: Tensor) -> Tensor:
        """The sum of both, (N,)."""
        x, z = split(joined, self.shape)
        return self.image.log_prob(x) + self.latent.log_prob(z)

    def project(self, joined: Tensor) -> Tensor:
        """Each by its own."""
        x, z = split(joined, self.shape)
        return join(self.image.project(x), self.latent.project(z))


@dataclass(frozen=True)
class FreshLatents(Smoothing):
    """Climb the mean log-posterior over `samples` latents, fresh at each step.

    By Jensen's inequality it bounds log p(x | g) with the latent marginalised from below. Stands
    where `gradleak.Ball` does in an adversary.
    """

    samples: int
    size: int

    def __post_init__(self) -> None:
        check_whole("samples", self.samples, 1)
        check_whole("size", self.size, 1)

    def points(self, joined: Tensor, keys: Sequence[tuple[int, ...]], moment: Moment) -> Tensor:
        """(N, samples, *): the same image with different latents."""
        if joined.ndim != 2 or joined.shape[1] <= self.size:
            raise ValueError(
                f"latents are the last {self.size} numbers of what is climbed, (N, *), got "
                f"{tuple(joined.shape)}: join them first, see `Joint`"
            )
        shape = (self.samples, self.size)
        draws = [
            torch.randn(shape, dtype=torch.float32, generator=generator(LATENT, *key, moment.key))
            for key in keys
        ]
        x = joined[:, None, : -self.size].expand(-1, self.samples, -1)
        return torch.cat([x, torch.stack(draws).to(x)], 2)


def latent(g: Gradient, model: torch.nn.Module) -> Tensor:
    """The latent of a PRECODE network, (N, size), read off exactly.

    The decoder's first layer tells the bottleneck's output v, the bottleneck's layers the features
    h that enter it, and z = (v - mean(h)) / deviation(h). model: a `gradleak.defenses.Precode`
    whose decoder begins with a linear layer.
    """
    decoder = next(layer for layer in g.layers if layer.startswith("decoder"))
    v = layer_input(g, decoder).a
    h = layer_input(g, "bottleneck.mean").a
    with torch.no_grad():
        _, mean, log_variance = model.bottleneck(h, torch.zeros_like(v))
    return (v - mean) / (log_variance / 2).exp()
