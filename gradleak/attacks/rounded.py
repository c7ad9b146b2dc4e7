"""A climb in stages, on a posterior whose corners are rounded off, less and less."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gradleak.attacks.adam import Adam
from gradleak.attacks.lbfgs import LBFGS
from gradleak.attacks.maximise import Climbed, Optimizer
from gradleak.priors import Moment
from gradleak.scales import POSITIVE, check_kind, check_number, check_numbers

if TYPE_CHECKING:
    from gradleak.attacks.batch import Batch


@dataclass(frozen=True)
class Rounded(Optimizer):
    """Climb in equal stages, each on a copy of the posterior with narrower roundings.

    In the attacker's copy alone: ReLUs are rounded off over `width` times the deviation of their
    input, and the corners of total variation over `corner` pixels. Each stage starts where the last
    one ended. A temperature or a prior's level is held through a stage, at its value at the end.
    What is found is judged by the posterior itself.

    by: the optimizer, its steps those of all stages together. widths: one for each stage.
    """

    by: LBFGS | Adam = LBFGS()
    widths: tuple[float, ...] = (0.3, 0.1, 0.03)
    corner: float = 0.01

    def __post_init__(self) -> None:
        check_kind("by", self.by, (LBFGS, Adam))
        check_numbers("widths", self.widths, POSITIVE)
        check_kind("widths", self.widths, tuple)
        check_number("corner", self.corner, POSITIVE)
        least = 2 * len(self.widths)
        if not self.widths or 0 < self.steps < least:
            raise ValueError(
                f"{self.steps} steps are too few for {len(self.widths)} stages, which take two or "
                f"more each: give {max(least, 2)} steps, or fewer widths, at least one"
            )

    @property
    def steps(self) -> int:
        """Of all stages."""
        return self.by.steps

    @property
    def patience(self) -> int | None:
        """Of the optimizer."""
        return self.by.patience

    @property
    def names(self) -> tuple[str, ...]:
        """The optimizer's, rounded."""
        return (f"rounded {self.by.names[0]}",)

    @property
    def compares(self) -> bool:
        """As the optimizer."""
        return self.by.compares

    @property
    def stretch(self) -> int:
        """The steps of a stage, rounded down."""
        return self.steps // len(self.widths)

    def of_steps(self, steps: int) -> Rounded:
        """The same stages with fewer steps, or more."""
        return replace(self, by=self.by.of_steps(steps))

    def trying(self, steps: int) -> Rounded:
        """One stage, as wide as the middle one."""
        middle = len(self.widths) // 2
        return replace(self, by=self.by.of_steps(steps), widths=self.widths[middle : middle + 1])

    def ending(self) -> Rounded:
        """The last stage alone."""
        return replace(self, by=self.by.of_steps(self.stretch), widths=self.widths[-1:])

    def one_step(self) -> Optimizer:
        """One of the optimizer, which takes as much memory."""
        return self.by.of_steps(1)

    def climb(self, batch: Batch, x: Tensor) -> Climbed:
        """Stage after stage; stopped counts the steps of all."""
        count, since = len(self.widths), torch.full((len(x),), -1, device=x.device)
        for stage, width in enumerate(self.widths):
            begin, end = (self.steps * k // count for k in (stage, stage + 1))
            rounded = batch.rounded(width, self.corner, Moment(stage + 1, count))
            now = rounded.by(lambda how, steps=end - begin: how.by.of_steps(steps))
            x, stopped, which = now.maximized(x)
            since = torch.where(stopped < 0, -1, torch.where(since < 0, begin + stopped, since))
        return Climbed(x, since, which)
