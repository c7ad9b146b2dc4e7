"""Samples of the posterior: Langevin dynamics while a score-based prior's noise level falls.

Song & Ermon 2019, with the likelihood of the released gradient added to the slope. From samples
come the estimates that a climb cannot give: the posterior mean, and the best guess for a distance.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gradleak.attacks.attack import Attack, Reconstruction, answered, check_view, refuse_blind
from gradleak.client import Client, ServerView
from gradleak.device import ordinary
from gradleak.priors import END, Learned, Moment
from gradleak.randomness import LANGEVIN, generator
from gradleak.scales import WEIGHT, check_call, check_kind, check_number, check_whole, per_attack


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
        check_whole("steps", self.steps, 1)
        check_number("rate", self.rate, "(0, 2)")
        check_whole("look", self.look, 1)


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

    def __post_init__(self) -> None:
        check_whole("k", self.k)

    def __call__(self, samples: Tensor) -> Tensor:
        """(N, *shape)."""
        if self.k >= samples.shape[1]:
            raise ValueError(f"k must be below the number of samples, {samples.shape[1]}: {self.k}")
        return samples[:, self.k]


@dataclass(frozen=True)
class MostWithin:
    """The sample with most others within delta pixels (L2); the first of equals.

    The delta-ball optimum of the paper's section 4, with the posterior replaced by its samples.
    """

    delta: float

    def __post_init__(self) -> None:
        check_number("delta", self.delta, WEIGHT)

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

    def __post_init__(self) -> None:
        check_kind("client", self.client, Client)
        check_kind("prior", self.prior, Learned, "the sum of several has no score")
        check_whole("count", self.count, 1)
        check_kind("langevin", self.langevin, Langevin)
        check_call("answer", self.answer)
        if isinstance(self.answer, Sample) and self.answer.k >= self.count:
            raise ValueError(f"{self.answer} is none of {self.count} samples, counted from 0")
        tried = self.answer(torch.rand(2, self.count, 1, 8, 8))  # not when all is sampled
        if not isinstance(tried, Tensor) or tried.shape != (2, 1, 8, 8):
            raise ValueError(
                "answer must take samples (N, count, *shape) and return (N, *shape), got "
                f"{getattr(tried, 'shape', tried)} from (2, {self.count}, 1, 8, 8)"
            )

    @ordinary
    def attack(self, view: ServerView, seed: int = 0) -> Reconstruction:
        """An answer for each client, and its samples. Raises ValueError where labels are hidden."""
        begin, how = time.perf_counter(), self.langevin
        check_view(view, seed)
        view.check_belief(self.client)
        if len(view.shape) != 3:
            raise ValueError(
                f"the prior's denoiser takes images (C, H, W), and this view's x is {view.shape}: "
                "use an attack that climbs, such as gradleak.bayes"
            )
        like = next(iter(view.g.values()))
        rngs = [generator(LANGEVIN, seed, key, k) for key in view.key for k in range(self.count)]
        y = view.labels.repeat_interleave(self.count, 0)

        def fit(x: Tensor) -> Tensor:
            return self.client.slope(view.g, x, y)

        def noise() -> Tensor:
            return torch.stack(
                [torch.randn(view.shape, dtype=torch.float32, generator=rng) for rng in rngs]
            ).to(like)

        x = 0.5 + self.prior.at(Moment(0, how.steps)).level * noise()
        direction = noise()
        for step in range(how.steps):
            now = self.prior.at(Moment(step, how.steps))
            slope = fit(x)
            if step == 0:
                refuse_blind((slope == 0).flatten(1).all(1))
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
