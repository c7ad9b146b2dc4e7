"""A learned prior: the slope of log p(x) at a noise level that falls during the climb."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from gradleak.batches import Scale, per_attack
from gradleak.denoiser import HIGHEST, LOWEST, Denoiser


@dataclass(frozen=True, eq=False)
class Learned:
    """Images are what a denoiser takes for images.

    Only the slope of its log-density is known, (D(x) - x) / level^2, at a noise level that falls
    geometrically from `start` to `end` pixels during the climb; `log_prob` is zero everywhere, with
    that slope times `weight`. name: what records call it. Raises ValueError for levels outside of
    those that the denoiser was trained on.
    """

    denoiser: Denoiser = field(repr=False)
    name: str
    weight: Scale = 1.0
    start: float = 0.5
    end: float = 0.05
    progress: float = field(default=1.0, repr=False)

    def __post_init__(self) -> None:
        if not LOWEST <= self.end <= self.start <= HIGHEST:
            raise ValueError(
                f"noise levels must fall within those of the training, {LOWEST} to {HIGHEST} "
                f"pixels, got {self.start} to {self.end}"
            )

    def at(self, progress: float) -> Learned:
        """The prior at this progress of the climb, from 0 to 1."""
        return replace(self, progress=progress)

    @property
    def level(self) -> float:
        """The noise level, in pixels."""
        return self.start ** (1 - self.progress) * self.end**self.progress

    def log_prob(self, x: Tensor) -> Tensor:
        """Zero, (N,), with the slope of the log-density."""
        slope = per_attack(self.weight, x) * self.score(x.detach())
        told = (x * slope).flatten(1).sum(1)
        return told - told.detach()

    @torch.no_grad()
    def score(self, x: Tensor) -> Tensor:
        """grad log p(x) at the present level, like x (N, ..., C, H, W)."""
        flat = x.flatten(0, -4)
        level = x.new_full((len(flat),), self.level)
        return ((self.denoiser(flat, level) - flat) / self.level**2).view_as(x)

    def project(self, x: Tensor) -> Tensor:
        """Return x."""
        return x
