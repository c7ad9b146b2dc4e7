"""Samples of the posterior: Langevin dynamics while a learned prior's noise level falls.

Song & Ermon 2019, with the likelihood of the released gradient added to the slope. From samples
come the estimates that a climb cannot give: the posterior mean, and the best guess for a distance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradleak.client import Client, ServerView
from gradleak.priors import Learned
from gradleak.randomness import LANGEVIN, generator
from gradleak.scales import per_attack


@dataclass(frozen=True)
class Langevin:
    """How samples move: x <- x + e slope + sqrt(2 e) noise, in `steps` steps.

    The step e is `rate` / (curvature of the prior + that of the likelihood), below 2 for stability.
    The first is 1 / level^2; the second is measured on the way, by one power iteration every
    `look` steps.
    """

    steps: int = 300
    rate: float = 0.5
    look: int = 10

    def __post_init__(self) -> None:
        if self.steps < 1 or self.look < 1 or not 0 < self.rate < 2:
            raise ValueError(
                f"Langevin dynamics need steps and looks of at least 1 and a rate in (0, 2), got "
                f"{self.steps}, {self.look} and {self.rate}"
            )


def posterior_samples(
    client: Client,
    view: ServerView,
    prior: Learned,
    count: int,
    langevin: Langevin = Langevin(),
    seed: int = 0,
) -> Tensor:
    """Draws x ~ p(x | g, y) under the client believed in, (N, count, *shape).

    All of them move at once, from noise; a draw depends on (seed, client's key, its number) only.
    At the end the last level's noise is removed. Raises ValueError where labels are hidden.
    """
    keys = [(seed, key, k) for key in view.key for k in range(count)]
    like = next(iter(view.g.values()))
    rngs = [generator(LANGEVIN, *key) for key in keys]
    y = view.labels.repeat_interleave(count, 0)

    def fit(x: Tensor) -> Tensor:
        return client.slope(view.g, x, y)

    now = prior.at(0.0)
    x = 0.5 + now.level * _noise(rngs, view.shape, like)
    direction = _noise(rngs, view.shape, like)
    curvature = like.new_zeros(len(keys))
    for step in range(langevin.steps):
        now = prior.at(step / langevin.steps)
        slope = fit(x)
        if step % langevin.look == 0:
            for _ in range(5 if step == 0 else 1):
                direction, curvature = _power_iteration(fit, x, slope, direction)
        e = langevin.rate / (1 / now.level**2 + curvature)
        e = per_attack(e, x)
        x = (
            x
            + e * (slope + now.weight * now.score(x))
            + (2 * e).sqrt() * _noise(rngs, view.shape, like)
        )
    last = prior.at(1.0)
    return (x + last.level**2 * last.score(x)).unflatten(0, (len(view), count))


def most_within(samples: Tensor, delta: float) -> Tensor:
    """Of each client's draws (N, K, *shape), the one with most others within delta, (N, *shape).

    The delta-ball optimum of the paper's section 4, with the posterior replaced by its samples.
    delta: pixels (L2). The first of equals.
    """
    flat = samples.flatten(2)
    near = torch.cdist(flat, flat) <= delta
    best = near.sum(2).argmax(1)
    return samples[torch.arange(len(samples), device=samples.device), best]


def _noise(rngs: Sequence[torch.Generator], shape: tuple[int, ...], like: Tensor) -> Tensor:
    return torch.stack([torch.randn(shape, generator=rng) for rng in rngs]).to(like)


def _power_iteration(
    slope: Callable[[Tensor], Tensor], x: Tensor, here: Tensor, direction: Tensor
) -> tuple[Tensor, Tensor]:
    """One step towards the largest curvature at x: a direction like x, and its value, (N,)."""
    length = 1e-2 / direction.flatten(1).norm(dim=1)
    moved = (slope(x + per_attack(length, x) * direction) - here) / 1e-2
    return moved, moved.flatten(1).norm(dim=1)
