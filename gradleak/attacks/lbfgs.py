"""A climb by curvature: L-BFGS, many at once, of which none waits for another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gradleak.attacks.maximise import Climbed, Objective, Optimizer, Project, State, check_steps
from gradleak.device import proceed
from gradleak.gradients import slope as slope_of
from gradleak.priors import END, Moment
from gradleak.scales import check_whole, per_attack

if TYPE_CHECKING:
    from gradleak.attacks.batch import Batch

ENOUGH = 1e-4  # of the gain that the slope promises (Armijo)
SHORTER = 0.35  # a step that did not gain enough
REJECTED = 5  # trials in a row, after which a climb takes the slope itself
FIRST, AGAIN, MOST = 0.1, 0.02, 0.5  # largest change of an entry: at first, after that, ever


@dataclass(frozen=True)
class LBFGS(Optimizer):
    """How an attack climbs: L-BFGS (Liu & Nocedal 1989) with a history for each attack.

    In a step each attack tries one point, and goes there if that gains enough (Armijo); else it
    tries one nearer by in the next step, so that no attack waits for another.

    steps: points tried. memory: the last moves of which the curvature is made. patience: an attack
    ends when that many steps have not raised its log-posterior; None lets every attack take all.
    """

    steps: int = 100
    memory: int = 10
    patience: int | None = None

    def __post_init__(self) -> None:
        check_steps(self)
        check_whole("memory", self.memory, 1)

    @property
    def names(self) -> tuple[str, ...]:
        """L-BFGS."""
        return ("L-BFGS",)

    @property
    def compares(self) -> bool:
        """It compares the trial point with the last."""
        return True

    def climb(self, batch: Batch, x: Tensor) -> Climbed:
        """Where the attacks end; what changes on the way of others is held at its end."""
        return replace(batch, held=END).maximized(x)

    def begin(self, x: Tensor) -> State:
        """x, f there, its slope; a trial point, the direction and length of the way to it; moves,
        changes of the slope, one over the products of both, how many there were, how many trials
        failed since; and no step."""
        still, past = torch.zeros_like(x), x.new_zeros(len(x), self.memory, x[0].numel())
        none = x.new_zeros(len(x), dtype=torch.long)
        lowest, whole = x.new_full((len(x),), -torch.inf), x.new_ones(len(x))
        pairs = past, past.clone(), past[:, :, 0].clone()
        return x, lowest, still, x, still, whole, *pairs, none, none, none

    @torch.enable_grad()
    def advanced(self, f: Objective, state: State, steps: range, project: Project) -> State:
        """The same after some of its steps, numbered from 0."""
        x, value, slope, trial, direction, length, s, y, rho, moves, failed, met = state
        for step in steps:
            proceed()
            trial = trial.detach().requires_grad_()
            new = f(trial, Moment(step, self.steps))
            new_slope = slope_of(new.sum(), trial)
            trial, new = trial.detach(), new.detach()
            finite = new.isfinite() & new_slope.isfinite().flatten(1).all(1)
            met = torch.where(finite, step + 1, met)

            moved, change = trial - x, slope - new_slope
            gain = _dot(slope, moved).clamp_min(0)
            better = finite & (new >= value + ENOUGH * gain)
            curve = _dot(moved, change)
            curved = curve > 1e-10 * _norm(moved) * _norm(change)
            rows = (better & value.isfinite() & curved).nonzero().flatten()
            place = moves[rows] % self.memory
            s[rows, place], y[rows, place] = moved[rows].flatten(1), change[rows].flatten(1)
            rho[rows, place] = 1 / curve[rows].clamp_min(1e-30)
            moves = moves.index_add(0, rows, torch.ones_like(rows))

            x, slope = _where(better, trial, x), _where(better, new_slope, slope)
            value = torch.where(better, new, value)
            failed = torch.where(better, 0, failed + 1)
            length = torch.where(better, 1, SHORTER * length)
            free = _free(x, slope, project)
            uphill = slope * free
            onward = free * _onward(uphill.flatten(1), s, y, rho, moves).view_as(x)
            direction = _where(better, onward, direction)
            lost = (failed >= REJECTED) | (_dot(direction, slope) <= 0)
            direction = _where(lost, _sized(uphill, AGAIN), direction)
            length, failed = torch.where(lost, 1, length), torch.where(lost, 0, failed)
            step_x = per_attack(length, x) * direction
            trial = project(x + step_x * (MOST / _largest(step_x)).clamp_max(1))
        return x, value, slope, trial, direction, length, s, y, rho, moves, failed, met


def _onward(slope: Tensor, s: Tensor, y: Tensor, rho: Tensor, moves: Tensor) -> Tensor:
    """The slope (N, D) times what the last moves tell of the inverse curvature.

    Nocedal & Wright 2006, algorithm 7.4. Without a move, the slope in a fitting length.
    """
    every, memory = torch.arange(len(s), device=s.device), s.shape[1]
    last = [(moves - back) % memory for back in range(1, memory + 1)]
    q, shares = slope, []  # without a move, rho is 0 and nothing is taken off
    for place in last:
        share = rho[every, place] * (s[every, place] * q).sum(1)
        q = q - share[:, None] * y[every, place]
        shares.append(share)
    newest = y[every, last[0]]
    q = q / (rho[every, last[0]] * newest.square().sum(1)).clamp_min(1e-30)[:, None]
    for place, share in zip(reversed(last), reversed(shares), strict=True):
        back = rho[every, place] * (y[every, place] * q).sum(1)
        q = q + (share - back)[:, None] * s[every, place]
    return torch.where((moves > 0)[:, None], q, _sized(slope, FIRST))


def _free(x: Tensor, slope: Tensor, project: Project) -> Tensor:
    """1 where x may follow the slope, 0 where it is at a bound and the slope points outwards."""
    ahead = x + 1e-3 * slope / _largest(slope)
    return ((project(ahead) != x) | (ahead == x)).to(x)


def _sized(slope: Tensor, largest: float) -> Tensor:
    return largest * slope / _largest(slope)


def _largest(v: Tensor) -> Tensor:
    """The largest absolute entry of each row, shaped to divide it."""
    return per_attack(v.abs().flatten(1).amax(1).clamp_min(1e-30), v)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)


def _norm(a: Tensor) -> Tensor:
    return _dot(a, a).sqrt()


def _where(rows: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(rows.view(-1, *[1] * (a.ndim - 1)), a, b)
