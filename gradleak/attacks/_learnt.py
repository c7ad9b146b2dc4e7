"""What attacks that are learnt have in common: whom they were trained for, and on what."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from gradleak.attacks.attack import Attack
from gradleak.client import ServerView
from gradleak.data import Images, Source
from gradleak.defenses import Defense, Noisy

Family = Callable[[float], Defense]
"""The defense believed in, by its noise scale: the class `GaussianNoise`, or one's own function."""


@dataclass(frozen=True, eq=False, repr=False)
class Learnt(Attack):
    """An attack on clients of a family of defenses, at any noise scale from `lowest` to `highest`.

    learnt: all that it learnt, in one module. source: the images that it has seen. how: what else
    it was trained with.
    """

    learnt: nn.Module
    family: Family
    lowest: float
    highest: float
    source: Source
    how: str

    def __repr__(self) -> str:
        trained_for = f"{self.family(self.lowest)} to {self.family(self.highest)}"
        return f"{type(self).__name__}({trained_for}, {self.how})"

    @property
    def sources(self) -> list[Source]:
        """The images that it has seen."""
        return [self.source]

    def scale(self, view: ServerView) -> float:
        """The clients' noise scale. Raises ValueError for a defense that it was not trained for."""
        defense = view.client.defense
        scale = defense.noise_scale if isinstance(defense, Noisy) else math.nan
        if not (self.lowest <= scale <= self.highest and self.family(scale) == defense):
            raise ValueError(
                f"trained for {self.family(self.lowest)} to {self.family(self.highest)}, this "
                f"client has {defense}: fit another attack for it"
            )
        return scale


def told(images: Images, options: Mapping[str, object]) -> str:
    """How an attack was trained, for its repr."""
    named = (f"{name}={value}" for name, value in options.items())
    return ", ".join([f"{len(images)} of {images.name}", *named])
