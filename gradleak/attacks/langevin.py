"""Samples of the posterior: Langevin dynamics while a score-based prior's noise level falls.

Song & Ermon 2019, with the likelihood of the released gradient added to the slope. From samples
come the estimates that a climb cannot give: the posterior mean, and the best guess for a distance.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gradleak.attacks.attack import Attack, Reconstruction, answered
from gradleak.client import Client, ServerView
from gradleak.priors import END, Learned, Moment
from gradleak.randomness import LANGEVIN, generator
from gradleak.scales import per_attack


@dataclass(frozen=True)
class Langevin:
    """How samples move: x <- x + e slope + sqrt(2 e) noise, in `steps` steps.

    The step e is `rate` / (curvature of the prior + that of the likelihood), below 2 for stability.
    The first is 1 / level^2; the second is measured by one power iteration every `look` steps.
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


@dataclass(frozen=True)
class Mean:
    """The mean of the samples: near the posterior mean, the answer of least squared error."""

    def __call__(self, samples: Tensor) -> Tensor:
        """(N, *shape)."""
        return samples.mean(1)


@dataclass(frozen=True)
class Sample:
    """One of the samples, by its number."""

    k: int = 0

    def __call__(self, samples: Tensor) -> Tensor:
        """(N, *shape)."""
        return samples[:, self.k]


@dataclass(frozen=True)
class MostWithin:
    """The sample with most others within delta pixels (L2); the first of equals.

    The delta-ball optimum of the paper's section 4, with the posterior replaced by its samples.
    """

    delta: float

    def __call__(self, samples: Tensor) -> Tensor:
        """(N, *shape)."""
        flat = samples.flatten(2)
        best = (torch.cdist(flat, flat) <= self.delta).sum(2).argmax(1)
        return samples[torch.arange(len(samples), device=samples.device), best]


@dataclass(frozen=True)
class PosteriorSamples(Attack):
    """Draw `count` images from p(x | g, y) under the client believed in, and answer from them.

    prior: score-based, by itself: the sum of several has no such slope. langevin: how the samples
    move. answer: samples (N, count, *shape) -> one image for each client, (N, *shape). All move at
    once, from noise; a draw depends on (seed, client's key, its number) only. At the end the last
    level's noise is removed.
    """

    client: Client
    prior: Learned
    count: int
    langevin: Langevin = Langevin()
    answer: Callable[[Tensor], Tensor] = Mean()

    def attack(self, view: ServerView, seed: int = 0) -> Reconstruction:
        """An answer for each client, and its samples. Raises ValueError where labels are hidden."""
        begin, how = time.perf_counter(), self.langevin
        view.check_belief(self.client)
        like = next(iter(view.g.values()))
        rngs = [generator(LANGEVIN, seed, key, k) for key in view.key for k in range(self.count)]
        y = view.labels.repeat_interleave(self.count, 0)

        def fit(x: Tensor) -> Tensor:
            return self.client.slope(view.g, x, y)

        def noise() -> Tensor:
            return torch.stack([torch.randn(view.shape, generator=rng) for rng in rngs]).to(like)

        x = 0.5 + self.prior.at(Moment(0, how.steps)).level * noise()
        direction = noise()
        for step in range(how.steps):
            now = self.prior.at(Moment(step, how.steps))
            slope = fit(x)
            if step % how.look == 0:
                for _ in range(5 if step == 0 else 1):  # power iteration
                    length = 1e-2 / direction.flatten(1).norm(dim=1)
                    direction = (fit(x + per_attack(length, x) * direction) - slope) / 1e-2
                curvature = direction.flatten(1).norm(dim=1)
            e = per_attack(how.rate / (1 / now.level**2 + curvature), x)
            x = x + e * (slope + now.weight * now.score(x)) + (2 * e).sqrt() * noise()
        last = self.prior.at(END)
        samples = (x + last.level**2 * last.score(x)).unflatten(0, (len(view), self.count))
        return answered(self.answer(samples), begin, samples=samples)
