"""What every prior can do, and when in a climb it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from gradleak.data import Images, Source


@dataclass(frozen=True)
class Moment:
    """A moment of a climb: before step `step`, counted from 0, of `steps`."""

    step: int
    steps: int

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
        raise NotImplementedError(f"{type(self).__name__} needs a method log_prob(x) -> (N,)")

    def project(self, x: Tensor) -> Tensor:
        """The nearest x that the prior holds possible; x itself, if it does not say otherwise."""
        return x

    def at(self, moment: Moment) -> Prior:
        """The prior at a moment of the climb; the same at all of them, if it does not say."""
        return self

    def given(self, view: Any) -> Prior:
        """The prior once it has seen what a `ServerView` shows; the same, if it does not look."""
        return self
