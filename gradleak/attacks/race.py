"""A race of climbs where none is best everywhere: the one that is ahead goes on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from gradleak.attacks.adam import Adam
from gradleak.attacks.lbfgs import LBFGS
from gradleak.attacks.maximise import Climbed, Optimizer
from gradleak.attacks.rounded import Rounded
from gradleak.scales import check_kind, check_number, refuse

if TYPE_CHECKING:
    from gradleak.attacks.batch import Batch


@dataclass(frozen=True)
class Race(Optimizer):
    """Each climb takes a share of the steps; for each attack the best goes on with what is left.

    The best is the one whose point has the higher log-posterior, of the posterior itself. It goes
    on from there with all the steps that are left.

    climbs: two or more, of equal steps, which are those of the race. share: of all steps, for all
    of the trials together, each of one stage.
    """

    revision: ClassVar[int] = 1  # trials of one stage

    climbs: tuple[Adam | LBFGS | Rounded, ...]
    share: float = 0.2

    def __post_init__(self) -> None:
        check_kind("climbs", self.climbs, tuple)
        for climb in self.climbs:
            check_kind("climbs", climb, (Adam, LBFGS, Rounded))
        if len(self.climbs) < 2 or len({climb.steps for climb in self.climbs}) > 1:
            refuse("climbs", "two or more climbs of equally many steps", self.climbs)
        check_number("share", self.share, "(0, 0.5]")
        if 0 < self.steps * self.share < 2 * len(self.climbs):
            least = math.ceil(2 * len(self.climbs) / self.share)
            raise ValueError(
                f"a share of {self.share:g} of {self.steps} steps is too short for trials of "
                f"{len(self.climbs)} climbs: give {least} steps or more, or a larger share"
            )
        self.rests  # noqa: B018  what has too few steps says so now

    @property
    def steps(self) -> int:
        """Of all trials and of what goes on."""
        return self.climbs[0].steps

    @property
    def patience(self) -> int | None:
        """None: each climb has its own."""
        return None

    @property
    def compares(self) -> bool:
        """Whether one of them does."""
        return any(climb.compares for climb in self.climbs)

    @property
    def stretch(self) -> int:
        """Of the trial that has the shortest."""
        return min(trial.stretch for trial in self.trials)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the climbs."""
        return tuple(climb.names[0] for climb in self.climbs)

    @property
    def trials(self) -> list[Optimizer]:
        """What each climb does at first."""
        each = int(self.share * self.steps / len(self.climbs))
        return [climb.trying(each) for climb in self.climbs]

    @property
    def rests(self) -> list[Optimizer]:
        """What each would do after that, as the winner."""
        spent = sum(trial.steps for trial in self.trials)
        return [climb.of_steps(self.steps - spent) for climb in self.climbs]

    def of_steps(self, steps: int) -> Race:
        """The same race over fewer steps, or more."""
        return replace(self, climbs=tuple(climb.of_steps(steps) for climb in self.climbs))

    def one_step(self) -> Optimizer:
        """One of that which needs most memory, by what it remembers."""
        return max((climb.one_step() for climb in self.climbs), key=lambda c: isinstance(c, LBFGS))

    def climb(self, batch: Batch, x: Tensor) -> Climbed:
        """Where the winners end; which (N,): the place of each attack's winner."""
        tried = [
            trial.climb(batch.by(lambda how, place=place: how.trials[place]), x)
            for place, trial in enumerate(self.trials)
        ]
        which = torch.stack([batch.score(each.x) for each in tried]).argmax(0)
        x, stopped = x.clone(), torch.full((len(x),), -1, device=x.device)
        for place, (rest, trial) in enumerate(zip(self.rests, tried, strict=True)):
            rows = (which == place).nonzero().flatten()
            if len(rows):
                some = batch.part(rows.cpu()).by(lambda how, place=place: how.rests[place])
                ended = rest.climb(some, trial.x[rows])
                x[rows], stopped[rows] = ended.x, ended.stopped
        return Climbed(x, stopped, which)
