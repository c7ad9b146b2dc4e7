"""A learned prior: the slope of log p(x) at a noise level that falls during the climb."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from gradleak.priors.prior import END, Fitted, Moment, Prior
from gradleak.randomness import DENOISER, generator
from gradleak.scales import Scale, per_attack


@runtime_checkable
class Trained(Fitted, Protocol):
    """A denoiser that says what it was trained on: levels (lowest, highest) in pixels, images."""

    levels: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Learned(Prior):
    """Images are what a denoiser takes for images: a score-based (plug-and-play) prior.

    Only the slope of its log-density is known, at a noise level that falls geometrically from
    `start` to `end` pixels during the climb; `log_prob` is zero everywhere, with that slope times
    `weight`, so that restarts are compared by their likelihood. The denoiser looks at x with as
    much noise as it was trained for, fresh at each step and the same for all attacks (Mardani et
    al. 2024): the slope is (D(x + level z) - x) / level^2, with the right mean.

    denoiser: D(x, sigma) -> the clean images, x (N, C, H, W), sigma (N,) in pixels. Those of
    deepinv, such as `deepinv.models.DRUNet`, fit as they are; levels and training images are
    checked where a denoiser declares them, as `Trained` does: ValueError for levels outside.
    name: what records call it. seed: of the noise.
    """

    denoiser: Callable[[Tensor, Tensor], Tensor] = field(repr=False)
    name: str
    weight: Scale = 1.0
    start: float = 0.5
    end: float = 0.05
    seed: int = 0
    moment: Moment = field(default=END, repr=False)

    def __post_init__(self) -> None:
        trained = isinstance(self.denoiser, Trained)
        lowest, highest = self.denoiser.levels if trained else (0.0, math.inf)
        if not (lowest <= self.end <= self.start <= highest and self.end > 0):
            raise ValueError(
                f"noise levels must fall within those of the training, {lowest} to {highest} "
                f"pixels, got {self.start} to {self.end}"
            )

    def at(self, moment: Moment) -> Learned:
        """The prior at this moment of the climb, with its noise level."""
        return replace(self, moment=moment)

    @property
    def level(self) -> float:
        """The noise level, in pixels."""
        return self.start ** (1 - self.moment.progress) * self.end**self.moment.progress

    def log_prob(self, x: Tensor) -> Tensor:
        """Zero, (N,), with the slope of the log-density."""
        z = torch.randn(x.shape[-3:], generator=generator(DENOISER, self.seed, self.moment.key))
        slope = per_attack(self.weight, x) * self.score(x.detach(), self.level * z.to(x))
        told = (x * slope).flatten(1).sum(1)
        return told - told.detach()

    @torch.no_grad()
    def score(self, x: Tensor, noise: Tensor | float = 0.0) -> Tensor:
        """grad log p(x + noise) at the present level, like x (N, ..., C, H, W), plus noise/level^2.

        noise: (C, H, W), or 0 where x is as noisy as the level says.
        """
        flat = x.flatten(0, -4)
        level = x.new_full((len(flat),), self.level)
        return ((self.denoiser(flat + noise, level) - flat) / self.level**2).view_as(x)
