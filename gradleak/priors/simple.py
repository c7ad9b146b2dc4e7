"""Priors: what an adversary knows about images before it sees a gradient.

`log_prob(x)` takes x (N, ..., H, W) in [0, 1] and returns (N,), up to a constant. `project(x)`
moves x to the nearest point with non-zero density; the identity for most. A `weight` is a number
or a tensor (N,). In the literature's "L2 loss + lambda R(x)", lambda is 2 scale^2 weight, where
scale is that of the Gaussian noise believed in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradleak.priors.prior import Moment, Prior
from gradleak.scales import Scale


@dataclass(frozen=True)
class Flat(Prior):
    """Every x alike."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Zero."""
        return x.new_zeros(len(x))


@dataclass(frozen=True)
class TotalVariation(Prior):
    """Neighbouring pixels are alike: -weight * sum |difference|^power, rows and columns.

    Summed over pixels, channels and a client's batch; borders do not wrap. power 1 is total
    variation (Rudin et al. 1992), power 2 the squared form of the paper's code.
    """

    weight: Scale
    power: int = 1

    def __post_init__(self) -> None:
        _check_weight(self.weight)
        if self.power not in (1, 2):
            raise ValueError(f"power is 1 or 2, got {self.power}")

    def log_prob(self, x: Tensor) -> Tensor:
        """Negative weighted variation, (N,)."""
        if x.ndim < 4:
            raise ValueError(f"total variation needs images (N, C, H, W), got {tuple(x.shape)}")
        f = torch.abs if self.power == 1 else torch.square
        rows, columns = (f(x.diff(dim=dim)).flatten(1).sum(1) for dim in (-2, -1))
        return -self.weight * (rows + columns)


@dataclass(frozen=True)
class Box(Prior):
    """Pixels lie in [0, 1], certainly; `project` keeps them there."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Zero inside, minus infinity outside, (N,)."""
        outside = ((x < 0) | (x > 1)).flatten(1).any(1)
        return x.new_zeros(len(x)).masked_fill(outside, -math.inf)

    def project(self, x: Tensor) -> Tensor:
        """Clip to [0, 1]."""
        return x.clamp(0, 1)


@dataclass(frozen=True)
class BoxPenalty(Prior):
    """Pixels lie near [0, 1]: -weight * sum (x - clip(x))^2, half of the paper's Table 5 prior."""

    weight: Scale

    def __post_init__(self) -> None:
        _check_weight(self.weight)

    def log_prob(self, x: Tensor) -> Tensor:
        """Negative penalty, (N,)."""
        return -self.weight * (x - x.clamp(0, 1)).square().flatten(1).sum(1)


@dataclass(frozen=True)
class Sum(Prior):
    """The product of several priors: their log-densities add."""

    priors: tuple[Prior, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.priors, tuple) or not self.priors:
            raise ValueError("Sum takes a non-empty tuple of priors: Sum((a, b))")

    def log_prob(self, x: Tensor) -> Tensor:
        """Sum of the parts, (N,)."""
        return sum(prior.log_prob(x) for prior in self.priors)

    def at(self, moment: Moment) -> Sum:
        """The parts at this moment of the climb."""
        return Sum(tuple(prior.at(moment) for prior in self.priors))

    def given(self, view: Any) -> Sum:
        """The parts once they have seen the gradients."""
        return Sum(tuple(prior.given(view) for prior in self.priors))

    def project(self, x: Tensor) -> Tensor:
        """Apply each part's projection in turn."""
        for prior in self.priors:
            x = prior.project(x)
        return x


def _check_weight(weight: Scale) -> None:
    if not bool((torch.as_tensor(weight) >= 0).all()):
        raise ValueError(f"a prior's weight must not be negative, got {weight}")
