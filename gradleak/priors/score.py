"""A learned prior: the slope of log p(x) at a noise level that falls during the climb."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from gradleak.data import Source
from gradleak.priors.denoiser import HIGHEST, LOWEST, Denoiser
from gradleak.randomness import DENOISER, generator
from gradleak.scales import Scale, per_attack


@dataclass(frozen=True, eq=False)
class Learned:
    """Images are what a denoiser takes for images.

    Only the slope of its log-density is known, at a noise level that falls geometrically from
    `start` to `end` pixels during the climb; `log_prob` is zero everywhere, with that slope times
    `weight`, so that restarts are compared by their likelihood. While the level falls, the denoiser
    looks at x with as much noise as it was trained for, fresh at each step and the same for all
    attacks (Mardani et al. 2024): the slope is (D(x + level z) - x) / level^2, with the right mean.
    name: what records call it. seed: of the noise. Raises ValueError for levels outside of those
    that the denoiser was trained on.
    """

    denoiser: Denoiser = field(repr=False)
    name: str
    weight: Scale = 1.0
    start: float = 0.5
    end: float = 0.05
    seed: int = 0
    progress: float = field(default=1.0, repr=False)

    def __post_init__(self) -> None:
        if not LOWEST <= self.end <= self.start <= HIGHEST:
            raise ValueError(
                f"noise levels must fall within those of the training, {LOWEST} to {HIGHEST} "
                f"pixels, got {self.start} to {self.end}"
            )

    @property
    def trained_on(self) -> Source | None:
        """Which images the denoiser has seen, if it tells."""
        return getattr(self.denoiser, "trained_on", None)

    @property
    def _step(self) -> int:
        return round(self.progress * 2**20)

    def at(self, progress: float) -> Learned:
        """The prior at this progress of the climb, from 0 to 1."""
        return replace(self, progress=progress)

    @property
    def level(self) -> float:
        """The noise level, in pixels."""
        return self.start ** (1 - self.progress) * self.end**self.progress

    def log_prob(self, x: Tensor) -> Tensor:
        """Zero, (N,), with the slope of the log-density."""
        z = torch.randn(x.shape[-3:], generator=generator(DENOISER, self.seed, self._step))
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

    def project(self, x: Tensor) -> Tensor:
        """Return x."""
        return x
