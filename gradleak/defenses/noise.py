"""Defenses: functions from the true gradient to the distribution of what is released.

The client draws from it, the adversary evaluates its density, so the two cannot disagree.
A defense of your own is any callable that takes a `Gradient` and returns an object with
`.sample(keys)` and `.log_prob(g)`, most simply one of `gradleak.defenses.distributions`:

    def clamped(gradient):
        return gl.Normal(gradient.map(lambda v: v.clamp(-1, 1)), scale=0.1)

It sees what the client would send, which is a mean where that averages over a batch: one that clips
there clips the mean, which is not the clipping of each example that privacy accounting asks for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import mul
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gradleak.defenses.distributions import Distribution, Laplace, Normal, PointMass, Rescaled
from gradleak.gradients import Gradient
from gradleak.randomness import MASK, generator
from gradleak.scales import (
    POSITIVE,
    Scale,
    check_call,
    check_number,
    check_numbers,
    check_scale,
    check_whole,
)

RATE = "[0, 1)"
NO_NOISE = "for no noise use NoDefense()"


class Defense(Protocol):
    """p(g | gradient)."""

    def __call__(self, gradient: Gradient) -> Distribution:
        """The distribution of the released g, given the true gradient."""


class InputDefense:
    """A defense that looks at the client's input besides its gradient: inherit from it."""

    def at(self, model: nn.Module, x: Tensor) -> Defense:
        """The defense of N clients that hold x (N, *shape)."""
        raise NotImplementedError(f"{type(self).__name__} needs a method at(model, x)")


class Transform:
    """A client's random change of its images before it takes a gradient: inherit from it."""

    def __call__(self, x: Tensor, keys: Sequence[tuple[int, ...]]) -> Tensor:
        """T_n(x_n) for images (N, C, H, W) in [0, 1]; T_n depends on keys[n] alone."""
        raise NotImplementedError(f"{type(self).__name__} needs a method __call__(x, keys)")

    def image(self, seen: Tensor) -> Tensor:
        """The images that records score, of what the network saw: all of it, by default."""
        return seen


class Noisy:
    """A defense that adds noise of one scale, which learnt attacks read off it."""

    scale: Scale

    @property
    def noise_scale(self) -> Scale:
        """The scale of its noise: its `scale`, if it does not say otherwise."""
        return self.scale


@dataclass(frozen=True)
class NoDefense:
    """Release the gradient as it is."""

    def __call__(self, gradient: Gradient) -> PointMass:
        """A point mass at the gradient."""
        return PointMass(gradient)


@dataclass(frozen=True)
class GaussianNoise(Noisy):
    """Add independent N(0, scale^2) to every entry. No clipping, so no privacy accounting.

    `scale` is in units of the gradient: a positive number, or a tensor (N,) with one for each
    attack. Raises ValueError otherwise.
    """

    scale: Scale

    def __post_init__(self) -> None:
        check_scale("scale", self.scale, POSITIVE, NO_NOISE)

    def __call__(self, gradient: Gradient) -> Normal:
        """Gaussian around the gradient."""
        return Normal(gradient, self.scale)


@dataclass(frozen=True)
class LaplaceNoise(Noisy):
    """Add independent Laplace noise of scale b, density exp(-|t| / b) / 2b, to every entry.

    `scale` is b, in units of the gradient, as that of `GaussianNoise` is.
    """

    scale: Scale

    def __post_init__(self) -> None:
        check_scale("scale", self.scale, POSITIVE, NO_NOISE)

    def __call__(self, gradient: Gradient) -> Laplace:
        """Laplace around the gradient."""
        return Laplace(gradient, self.scale)


@dataclass(frozen=True)
class RandomMask(Noisy):
    """Set each entry to zero with probability `rate`, then apply another defense to all of them.

    The mask is public and the same for every client and image: it is a function of `seed` and
    of the parameter's place and shape. `rate` lies in [0, 1); raises ValueError otherwise.
    """

    rate: float
    then: Defense
    seed: int = 0

    def __post_init__(self) -> None:
        check_number("rate", self.rate, RATE)
        check_call("then", self.then)
        check_whole("seed", self.seed)

    @property
    def noise_scale(self) -> Scale:
        """That of `then`; ValueError if it adds none."""
        if not isinstance(self.then, Noisy):
            raise ValueError(f"{self.then} after a mask adds no noise of one scale")
        return self.then.noise_scale

    def __call__(self, gradient: Gradient) -> Distribution:
        """The distribution that `then` makes of the masked gradient."""
        return self.then(gradient.masked(self.mask(gradient)))

    def mask(self, gradient: Gradient) -> dict[str, Tensor]:
        """1 where an entry is kept, 0 where it is not: name -> tensor (*parameter shape)."""
        return {
            name: _mask(self.rate, self.seed, place, v.shape[1:], v.device, v.dtype)
            for place, (name, v) in enumerate(gradient.items())
        }


@dataclass(frozen=True)
class LearnedNoise:
    """Add Gaussian noise that has a scale of its own for each parameter tensor.

    `scales` are positive numbers in units of the gradient, one for each parameter, first to last;
    ValueError otherwise. The paper's code lists such a defense but not how it was trained;
    `learned_noise` fits it.
    """

    scales: tuple[float, ...]

    def __post_init__(self) -> None:
        check_numbers("scales", self.scales, POSITIVE)

    def __call__(self, gradient: Gradient) -> Distribution:
        """Gaussian around the gradient."""
        if len(self.scales) != len(gradient):
            raise ValueError(
                f"{len(self.scales)} scales for {len(gradient)} parameters: {', '.join(gradient)}"
            )
        weights = {name: 1 / s for name, s in zip(gradient, self.scales, strict=True)}
        return Rescaled(Normal(gradient.scaled(weights), 1.0), weights)


def learned_noise(gradient: Gradient, scale: float) -> LearnedNoise:
    """Noise in proportion to each parameter's own gradient, with mean square scale^2 over entries.

    gradient: those of N examples that are public, from which the proportions are learned. As much
    noise in all as GaussianNoise(scale) adds, and an equal signal-to-noise ratio everywhere. A
    parameter whose gradient is zero counts as a thousandth of the others' root mean square. The
    scales are rounded to four digits, so that records can name them.
    """
    check_number("scale", scale, POSITIVE, NO_NOISE)
    square = [float(v.square().mean()) for v in gradient.values()]
    size = [v[0].numel() for v in gradient.values()]
    mean = sum(map(mul, size, square)) / gradient.size
    if not mean > 0:
        raise ValueError("all gradients are zero: nothing can be learned from them")
    square = [max(v, 1e-6 * mean) for v in square]
    mean = sum(map(mul, size, square)) / gradient.size
    return LearnedNoise(tuple(float(f"{scale * math.sqrt(v / mean):.4g}") for v in square))


@lru_cache(maxsize=256)
def _mask(rate: float, seed: int, place: int, shape: torch.Size, *to: Any) -> Tensor:
    return (
        torch.rand(shape, dtype=torch.float32, generator=generator(MASK, seed, place)) >= rate
    ).to(*to)
