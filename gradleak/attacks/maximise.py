"""How an attack searches: climbing a function of x, many climbs at once, by any optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from gradleak.device import ordinary
from gradleak.priors import END, Moment
from gradleak.scales import check_whole

if TYPE_CHECKING:
    from gradleak.attacks.batch import Batch

Objective = Callable[[Tensor, Moment], Tensor]
"""f(x, moment) -> (N,), what N climbs maximise at a moment of the climb."""

State = tuple[Tensor, ...]
"""N climbs under way, a row each: first where they are, x (N, *shape), and last how many steps each
took to the last slope that was finite, (N,)."""

Project = Callable[[Tensor], Tensor]
"""x -> the nearest x that is possible."""


class Climbed(NamedTuple):
    """Where N climbs ended, x (N, *shape). stopped (N,): the step since which each met no finite
    slope, -1 for one whose last was. which (N,): the climb that won, where several raced, else 0.
    """

    x: Tensor
    stopped: Tensor
    which: Tensor


LOOK = 100  # after so many steps without a finite slope a climb is given up


class Optimizer:
    """How an attack climbs: `steps` evaluations of what it climbs and of its slope.

    patience: an attack ends when that many steps have not raised its log-posterior; None lets every
    attack take all steps.
    """

    steps: int
    patience: int | None

    @property
    def compares(self) -> bool:
        """Whether it compares values at two points, so that what it climbs may not change."""
        return False

    @property
    def stretch(self) -> int:
        """How many of its steps climb one and the same function."""
        return self.steps

    @property
    def names(self) -> tuple[str, ...]:
        """What tables call it; several for a race."""
        raise NotImplementedError

    def of_steps(self, steps: int) -> Optimizer:
        """The same climb in fewer steps, or more."""
        return replace(self, steps=steps)

    def trying(self, steps: int) -> Optimizer:
        """The same climb in so few steps that stages would be too short."""
        return self.of_steps(steps)

    def one_step(self) -> Optimizer:
        """The same with one step."""
        return self.of_steps(1)

    def ending(self) -> Optimizer:
        """The last third of its steps, for a climb that starts near its end."""
        return self.of_steps(math.ceil(self.steps / 3))

    def begin(self, x: Tensor) -> State:
        """Climbs from x (N, *shape) that have taken no step."""
        raise NotImplementedError(
            f"{self!r:.99} climbs several functions in turn, as the optimizer of an adversary; a "
            "single one is climbed with Adam or LBFGS"
        )

    def advanced(self, f: Objective, state: State, steps: range, project: Project) -> State:
        """The same after some of its steps, numbered from 0."""
        raise NotImplementedError

    def climb(self, batch: Batch, x: Tensor) -> Climbed:
        """Where the attacks of a batch end that start at x, and since when each stood still."""
        return batch.maximized(x)


def check_steps(optimizer: Optimizer) -> None:
    """ValueError unless its steps and its patience are whole numbers."""
    check_whole("steps", optimizer.steps)
    if optimizer.patience is not None:
        check_whole("patience", optimizer.patience, 1, "None lets every attack take all steps")


Part = tuple[Objective, Optimizer, Project]
"""What some of the climbs maximise, how, and how they are projected."""


@ordinary
def maximize(
    f: Objective, x: Tensor, optimizer: Optimizer, project: Project = lambda x: x
) -> Tensor:
    """Climb f(x, moment) -> (N,) from x (N, *shape); the N climbs are independent.

    Knows nothing about gradients of networks. A climb whose derivative is not finite stands still.
    """
    return optimizer.advanced(f, optimizer.begin(x), range(optimizer.steps), project)[0]


def maximize_parts(
    part: Callable[[Tensor], Part], x: Tensor, optimizer: Optimizer, first_look: int = 0
) -> Climbed:
    """The same, of which part(index) describes the climbs that are left; and where each stopped.

    A climb ends once `optimizer.patience` steps have not raised it, and keeps the better of its
    last two looks; nobody ends so before step `first_look`. It ends as well where it has met no
    finite slope from one look to the next.
    """
    found, best = x.clone(), x.new_full((len(x),), -torch.inf)
    stopped = torch.full((len(x),), -1, device=x.device)
    left, state = torch.arange(len(x)), optimizer.begin(x)
    every = optimizer.patience or LOOK
    f, own, project = part(left)
    for begin in range(0, optimizer.steps, every):
        steps = range(begin, min(begin + every, optimizer.steps))
        state = own.advanced(f, state, steps, project)
        met = state[-1]
        stopped[left] = torch.where(met < steps.stop, met, -1)
        better = torch.ones_like(met, dtype=torch.bool)
        if optimizer.patience and steps.stop >= first_look:
            with torch.enable_grad():  # so that gradients of networks stay in factors
                now = f(state[0].requires_grad_(), END).detach()
            better = now > best[left]
            best[left[better.cpu()]] = now[better]
        found[left[better.cpu()]] = state[0].detach()[better]
        kept = (better & (met > begin)).nonzero().flatten()
        if not len(kept):
            break
        if len(kept) < len(left):
            left, state = left[kept.cpu()], tuple(each[kept] for each in state)
            f, own, project = part(left)
    return Climbed(found, stopped, torch.zeros_like(stopped))
