"""What every prior can do, and when in a climb it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gradleak.data import Source


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


class Prior:
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

    @property
    def sources(self) -> list[Source]:
        """The images that it was made from, which cannot be attacked in a trial."""
        return []
