"""p(x): what every prior can do, when in a climb it is asked, and the simple ones.

`log_prob(x)` takes x (N, ...), such as images (N, C, H, W) in [0, 1], and returns (N,), up to a
constant. `project(x)` moves x to the nearest point with non-zero density; the identity for most. A
`weight` is a number or a tensor (N,). In the literature's "L2 loss + lambda R(x)", lambda is
2 scale^2 weight, where scale is that of the Gaussian noise believed in.
"""

from __future__ import annotations

import functools
import math
import operator
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from gradleak.data import Images, Source
from gradleak.scales import (
    WEIGHT,
    Scale,
    check_kind,
    check_number,
    check_scale,
    check_whole,
    per_attack,
)


@dataclass(frozen=True)
class Moment:
    """A moment of a climb: before step `step`, counted from 0, of `steps`."""

    step: int
    steps: int

    def __post_init__(self) -> None:
        check_whole("step", self.step)
        check_whole("steps", self.steps, 1)

    @property
    def progress(self) -> float:
        """How much of the climb is over, from 0 to 1."""
        return self.step / self.steps

    @property
    def key(self) -> int:
        """What the randomness of this moment depends on."""
        return round(self.progress * 2**20)


END = Moment(1, 1)
"""When a climb is over, and what it found is scored."""


@runtime_checkable
class Fitted(Protocol):
    """What was fitted to images and says to which, or None where that is not known."""

    trained_on: Source | None


class Sourced:
    """Tells the images that it was made from: priors and attacks do."""

    @property
    def sources(self) -> list[Source]:
        """What its fields were made from; none of these images can be attacked in a trial."""
        return _sources(tuple(vars(self).values()))


def _sources(what: Any) -> list[Source]:
    if isinstance(what, tuple):
        return [source for part in what for source in _sources(part)]
    if isinstance(what, Images):
        return [what.source]
    if isinstance(what, Fitted):
        return [] if what.trained_on is None else [what.trained_on]
    return what.sources if isinstance(what, Sourced) else []


class Prior(Sourced):
    """p(x): inherit from it and say `log_prob`; everything else has a default.

    In the literature also a regulariser, and a plug-and-play prior where only its slope is known.
    """

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) + const of each attack, (N,)."""
        raise NotImplementedError(
            f"{type(self).__name__} needs a method log_prob(x) -> (N,), one number for each x "
            "(N, ...): such as return -x.square().flatten(1).sum(1), or x.new_zeros(len(x)) for a "
            "prior that only projects"
        )

    def project(self, x: Tensor) -> Tensor:
        """The nearest x that the prior holds possible; x itself, if it does not say otherwise."""
        return x

    def at(self, moment: Moment) -> Prior:
        """The prior at a moment of the climb; the same at all of them, if it does not say."""
        return self

    def rounded(self, corner: float) -> Prior:
        """The prior with its corners rounded off over so many pixels; the same if it has none."""
        return self

    def given(self, view: Any) -> Prior:
        """The prior once it has seen what a `ServerView` shows; the same, if it does not look."""
        return self


@dataclass(frozen=True)
class Flat(Prior):
    """Every x alike."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Zero."""
        return x.new_zeros(len(x))


@dataclass(frozen=True, repr=False)
class TotalVariation(Prior):
    """Neighbouring values are alike: -weight * sum |difference|^power along the last `axes` axes.

    axes: None for those that one example has behind its channels, as a client's view tells: time of
    a series (C, L), rows and columns of an image (C, H, W), three axes of a volume (C, D, H, W); in
    `log_prob` alone, those of an image. Give the number for examples without channels.
    Summed over values, channels and a client's batch; borders do not wrap. power 1 is total
    variation (Rudin et al. 1992), power 2 the squared form of the paper's code. corner: |d| of
    power 1 is rounded off to sqrt(d^2 + corner^2) - corner. Raises ValueError for other powers,
    axes below 1, and examples without that many.
    """

    weight: Scale
    power: int = 1
    axes: int | None = None
    corner: float = 0.0

    def __post_init__(self) -> None:
        check_scale("weight", self.weight, WEIGHT)
        check_whole("power", self.power, 1)
        if self.power > 2:
            raise ValueError(f"power is 1 or 2, got {self.power}")
        if self.axes is not None and (type(self.axes) is not int or self.axes < 1):
            raise ValueError(f"axes is how many of the last axes vary, 1 or more, got {self.axes}")
        check_number("corner", self.corner, WEIGHT)

    def __repr__(self) -> str:
        """What it was made of; axes and corner where they were given."""
        more = "" if self.axes is None else f", axes={self.axes}"
        more += f", corner={self.corner!r}" if self.corner else ""
        return f"TotalVariation(weight={self.weight!r}, power={self.power!r}{more})"

    def rounded(self, corner: float) -> TotalVariation:
        """The same with a corner, if it has none."""
        return self if self.corner or self.power == 2 else replace(self, corner=corner)

    def given(self, view: Any) -> TotalVariation:
        """The same with its axes: those of the view's examples behind their channels."""
        example = _example(view)
        axes = len(example) - 1 if self.axes is None else self.axes
        if not 0 < axes <= len(example):
            raise ValueError(
                f"total variation needs neighbours, and an example of shape {example} has "
                f"{'none' if self.axes is None else f'no {axes} axes'}: give another prior, such "
                "as prior=gl.Flat(), or prior=gl.Box() for values in [0, 1]"
            )
        return replace(self, axes=axes)

    def log_prob(self, x: Tensor) -> Tensor:
        """Negative weighted variation, (N,)."""
        axes = 2 if self.axes is None else self.axes
        if x.ndim < (4 if self.axes is None else 1 + axes):
            raise ValueError(
                f"total variation needs images (N, C, H, W), got {tuple(x.shape)}; for series say "
                "TotalVariation(weight, axes=1), for tables take gl.Box() or gl.Flat()"
            )
        along = [self._of(x.diff(dim=dim)).flatten(1).sum(1) for dim in range(-axes, 0)]
        variation = functools.reduce(torch.add, along)
        return -per_attack(self.weight, variation) * variation

    def _of(self, d: Tensor) -> Tensor:
        if self.power == 2:
            return d.square()
        return (d.square() + self.corner**2).sqrt() - self.corner if self.corner else d.abs()


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
        check_scale("weight", self.weight, WEIGHT)

    def log_prob(self, x: Tensor) -> Tensor:
        """Negative penalty, (N,)."""
        outside = (x - x.clamp(0, 1)).square().flatten(1).sum(1)
        return -per_attack(self.weight, outside) * outside


@dataclass(frozen=True)
class Sum(Prior):
    """The product of several priors: their log-densities add."""

    priors: tuple[Prior, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.priors, tuple) or not self.priors:
            raise ValueError("priors must be a non-empty tuple of priors: Sum((a, b))")
        for prior in self.priors:
            check_prior("priors", prior)

    def log_prob(self, x: Tensor) -> Tensor:
        """Sum of the parts, (N,)."""
        return sum(prior.log_prob(x) for prior in self.priors)

    def at(self, moment: Moment) -> Sum:
        """The parts at this moment of the climb."""
        now = tuple(prior.at(moment) for prior in self.priors)
        return self if all(map(operator.is_, now, self.priors)) else Sum(now)

    def rounded(self, corner: float) -> Sum:
        """The parts with theirs rounded off."""
        return Sum(tuple(prior.rounded(corner) for prior in self.priors))

    def given(self, view: Any) -> Sum:
        """The parts once they have seen the gradients."""
        if self is IMAGES and len(_example(view)) != 3:
            raise ValueError(
                f"the default prior is one of images in [0, 1], and an example has the shape "
                f"{_example(view)}: give another, such as prior=gl.Flat(), prior=gl.Box() for "
                "values in [0, 1], or prior=gl.TotalVariation(1e-5) for series"
            )
        return Sum(tuple(prior.given(view) for prior in self.priors))

    def project(self, x: Tensor) -> Tensor:
        """Apply each part's projection in turn."""
        for prior in self.priors:
            x = prior.project(x)
        return x


def _example(view: Any) -> tuple[int, ...]:
    """The shape of one example of a view's clients."""
    return view.shape if view.client.batch_size is None else view.shape[1:]


def check_prior(name: str, prior: Prior) -> None:
    """Raise ValueError unless it is a prior: an instance of a class that extends `Prior`."""
    check_kind(name, prior, Prior, "extend gradleak.Prior, and give an instance")


IMAGES = Sum((TotalVariation(1e-5), Box()))
"""What `inverting_gradients` holds likely where it is told nothing else: images in [0, 1]."""
