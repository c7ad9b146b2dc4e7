"""How an attack searches: climbing a function of x, or its mean around x, many climbs at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from gradleak.device import ordinary, proceed
from gradleak.gradients import slope as slope_of
from gradleak.priors import END, Moment
from gradleak.randomness import BALL, generator
from gradleak.scales import (
    POSITIVE,
    Scale,
    check_flag,
    check_kind,
    check_scale,
    check_whole,
    per_attack,
)

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

    def one_step(self) -> Optimizer:
        """The same with one step."""
        return self.of_steps(1)

    def ending(self) -> Optimizer:
        """The last third of its steps, for a climb that starts near its end."""
        return self.of_steps(math.ceil(self.steps / 3))

    def begin(self, x: Tensor) -> State:
        """Climbs from x (N, *shape) that have taken no step."""
        raise NotImplementedError

    def advanced(self, f: Objective, state: State, steps: range, project: Project) -> State:
        """The same after some of its steps, numbered from 0."""
        raise NotImplementedError

    def climb(self, batch: Batch, x: Tensor) -> Climbed:
        """Where the attacks of a batch end that start at x, and since when each stood still."""
        return batch.maximized(x)


@dataclass(frozen=True)
class Adam(Optimizer):
    """How an attack climbs: Adam (Kingma & Ba 2015) with its own state for each attack.

    steps: attack iterations. lr: pixels per step, a number or (N,). decay: factor on lr after
    each step, a number or (N,). drops: shares of the steps after which lr falls tenfold.
    signed: use only the sign of the gradient (Geiping et al. 2020). patience: an attack ends when
    that many steps have not raised its log-posterior; None lets every attack take all steps.
    """

    steps: int = 200
    lr: Scale = 0.1
    decay: Scale = 1.0
    drops: tuple[float, ...] = ()
    signed: bool = False
    patience: int | None = None

    def __post_init__(self) -> None:
        check_steps(self)
        check_scale("lr", self.lr, POSITIVE)
        check_scale("decay", self.decay, "(0, 1]")
        check_kind("drops", self.drops, tuple)
        for share in self.drops:
            check_scale("drops", share, "[0, 1]")
        check_flag("signed", self.signed)

    @property
    def names(self) -> tuple[str, ...]:
        """Adam, and whether by signs."""
        return ("signed Adam" if self.signed else "Adam",)

    def of_steps(self, steps: int) -> Adam:
        """The same with its rate falling as far over them."""
        decay = self.decay if steps == self.steps else self.decay ** (self.steps / max(steps, 1))
        return replace(self, steps=steps, decay=decay)

    def ending(self) -> Adam:
        """Its last third, in which the rate is as it would be by then."""
        left = math.ceil(self.steps / 3)
        gone = self.steps - left
        drops = tuple((share * self.steps - gone) / left for share in self.drops if left)
        later = tuple(share for share in drops if share > 0)
        return replace(self, steps=left, lr=self.rate(gone), drops=later)

    def rate(self, step: int) -> Scale:
        """The learning rate of a step, counted from 0."""
        drops = sum(step >= share * self.steps for share in self.drops)
        return self.lr * self.decay**step * 0.1**drops

    def begin(self, x: Tensor) -> State:
        """x, two averages of the slope, and no step."""
        return x, torch.zeros_like(x), torch.zeros_like(x), x.new_zeros(len(x), dtype=torch.long)

    @torch.enable_grad()
    def advanced(self, f: Objective, state: State, steps: range, project: Project) -> State:
        """The same after some of its steps, numbered from 0."""
        x, mean, square, met = state
        for step in steps:
            proceed()
            x = x.detach().requires_grad_()
            slope = slope_of(f(x, Moment(step, self.steps)).sum(), x)
            finite = slope.isfinite().flatten(1).all(1)
            met = torch.where(finite, step + 1, met)
            slope = torch.where(per_attack(finite, slope).bool(), slope, 0)
            slope = slope.sign() if self.signed else slope
            mean = 0.9 * mean + 0.1 * slope
            square = 0.999 * square + 0.001 * slope.square()
            bias = (1 - 0.9 ** (step + 1)) / (1 - 0.999 ** (step + 1)) ** 0.5
            direction = mean / (bias * square.sqrt() + 1e-12)
            x = project(x.detach() + per_attack(self.rate(step), x) * direction)
        return x.detach(), mean, square, met


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


@runtime_checkable
class Smoothing(Protocol):
    """What a log-posterior is averaged over: `samples` points for each x, drawn anew each step."""

    samples: int

    def points(self, x: Tensor, keys: Sequence[tuple[int, ...]], moment: Moment) -> Tensor:
        """The points (N, samples, *shape) of x (N, *shape); attack n's come from keys[n] alone."""

    def around(self, f: Objective, keys: Sequence[tuple[int, ...]]) -> Objective:
        """The mean of f over the points; f takes N * samples of them, each attack's together."""

        def mean(x: Tensor, moment: Moment = END) -> Tensor:
            points = self.points(x, keys, moment)
            return f(points.flatten(0, 1), moment).unflatten(0, (len(x), -1)).mean(1)

        return mean


@dataclass(frozen=True)
class Ball(Smoothing):
    """Climb the mean log-posterior of `samples` points within `radius` of x.

    By Jensen's inequality that mean bounds the logarithm of the ball's mass from below, up to a
    constant (paper, section 4). Points are uniform in volume and fresh at each step. The radius, in
    pixels (L2), a number or (N,), falls linearly to zero on the way, so that the climb ends at the
    plain log-posterior. Raises ValueError unless radius > 0 and samples > 0.
    """

    radius: Scale
    samples: int = 4

    def __post_init__(self) -> None:
        check_scale("radius", self.radius, POSITIVE, "for no ball at all use ball=None")
        check_whole("samples", self.samples, 1, "for no ball at all use ball=None")

    def points(self, x: Tensor, keys: Sequence[tuple[int, ...]], moment: Moment) -> Tensor:
        """Points around x (N, *shape), (N, samples, *shape); attack n's come from keys[n] alone."""
        shape, size = (self.samples, *x.shape[1:]), x[0].numel()
        offsets = []
        for key in keys:
            rng = generator(BALL, *key, moment.key)
            direction = torch.randn(shape, dtype=torch.float32, generator=rng).flatten(1)
            length = torch.rand(self.samples, 1, dtype=torch.float32, generator=rng) ** (1 / size)
            offsets.append((length * direction / direction.norm(dim=1, keepdim=True)).view(shape))
        radius = per_attack(self.radius, x.unsqueeze(1))
        return x.unsqueeze(1) + (1 - moment.progress) * radius * torch.stack(offsets).to(x)
