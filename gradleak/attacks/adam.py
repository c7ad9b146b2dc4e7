"""A climb by a running mean of the slope: Adam, many at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradleak.attacks.maximise import Objective, Optimizer, Project, State, check_steps
from gradleak.device import proceed
from gradleak.gradients import slope as slope_of
from gradleak.priors import Moment
from gradleak.scales import POSITIVE, Scale, check_flag, check_kind, check_scale, per_attack


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
