"""Attacks: maximise log p(g | x, y) + log p(x) over x, for many attacks at once.

An adversary is a belief about the client and a prior about images. `gradleak.presets` has those of
the literature.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradleak.attacks.maximise import Adam, Part, maximize, maximize_with_patience
from gradleak.attacks.smoothing import Smoothing
from gradleak.attacks.stack import Rows, merge
from gradleak.client import Client, ServerView
from gradleak.data import Source
from gradleak.defenses import Defense
from gradleak.device import as_many_as_fit, in_chunks
from gradleak.gradients import Gradient
from gradleak.priors import Prior, at, sources
from gradleak.randomness import START, generator
from gradleak.scales import Scale


@dataclass(frozen=True)
class Adversary:
    """What an attacker believes, p(g | x, y) and p(x), and how it searches.

    ball: average the log-posterior over a ball around x (paper, section 4), or over what else is
    unknown (`gradleak.precode.FreshLatents`); None: take it at x.
    temperature: the likelihood enters as log p(g | x, y) / temperature, which falls
    geometrically from this value (at least 1, or (N,)) to 1 over the first half of the steps.
    """

    client: Client
    prior: Prior
    optimizer: Adam = Adam()
    temperature: Scale = 1.0
    ball: Smoothing | None = None
    restarts: int = 1

    def __post_init__(self) -> None:
        if not bool((torch.as_tensor(self.temperature) >= 1).all()):
            raise ValueError(f"temperature must be at least 1, got {self.temperature}")

    @property
    def belief(self) -> Defense:
        """The defense that the adversary believes in."""
        return self.client.defense

    @property
    def sources(self) -> list[Source]:
        """What its prior was made from."""
        return sources(self.prior)

    def attack(self, view: ServerView, restarts: int = 1, seed: int = 0) -> Reconstruction:
        """Attack every client of the view; see `attack_all`."""
        return attack_all([(self, view)], restarts, seed)[0]

    def columns(self) -> dict[str, str | int | float]:
        """What records say of it, by column."""
        return {
            "belief": repr(self.belief),
            "prior": repr(self.prior),
            "optimizer": repr(self.optimizer),
            "temperature": float(self.temperature),
            "ball": repr(self.ball),
            "restarts": self.restarts,
        }


@dataclass(frozen=True)
class Reconstruction:
    """What an attack found for N clients.

    x: (N, *shape), of the restart with the highest log-posterior. log_posterior: (N,), at
    temperature 1, up to a constant. restarts: (N, R), every restart's log-posterior.
    seconds: wall-clock time of the computation, an equal share of it where several shared one.
    """

    x: Tensor
    log_posterior: Tensor
    restarts: Tensor
    seconds: float


def log_posterior(
    adversary: Adversary, g: Gradient, y: Tensor
) -> Callable[[Tensor, float], Tensor]:
    """log p(x | g, y) + const as a function of x and of the progress of the climb in [0, 1]."""
    client, prior = adversary.client, adversary.prior

    def f(x: Tensor, progress: float = 1.0) -> Tensor:
        temperature = adversary.temperature ** max(1 - 2 * progress, 0)
        return client.log_prob(g, x, y) / temperature + at(prior, progress).log_prob(x)

    return f


Attacks = Sequence[tuple[Adversary, ServerView]]
AT_ONCE = {"cpu": 64, "cuda": 4096}  # attacks held at a time; on a CPU more were not faster
SCORED_AT_ONCE = 2**24  # entries of the gradients that are held to score attacks at the end


def attack_all(
    attacks: Attacks,
    restarts: int = 1,
    seed: int = 0,
    chunk: int | None = None,
) -> list[Reconstruction]:
    """Each adversary against every client of its view, all in one computation.

    The adversaries may differ in floats only (scale, weight, lr, decay, temperature) and the
    views in what was released; the result equals that of one call for each. A start depends on
    (seed, client's key, restart) only. `chunk` attacks are held in memory at a time (None: as many
    as are fast and fit), and half as many where it runs out. Raises ValueError where labels are
    hidden.
    """
    if restarts < 1 or not attacks:
        raise ValueError("an attack needs at least one adversary and one restart")
    begin = time.perf_counter()
    attacks = [(_informed(adversary, view), view) for adversary, view in attacks]
    counts = [len(view) * restarts for _, view in attacks]
    setting = torch.arange(len(attacks)).repeat_interleave(torch.tensor(counts))
    place = torch.cat([torch.arange(count) for count in counts])
    clients = tuple(len(view) for _, view in attacks)
    rows = Rows(place // restarts, setting, place % restarts, clients)
    order = _by_observation(attacks, rows)

    parts = in_chunks(
        lambda part: _attack_rows(attacks, rows.part(part), seed),
        order,
        chunk or _fitting(attacks, rows.part(order[:3]), seed, len(order)),
    )
    second = (time.perf_counter() - begin) / len(place)
    back = order.argsort()
    xs = torch.cat([x for x, _ in parts])[back].split(counts)
    scores = torch.cat([score for _, score in parts])[back].split(counts)
    return [_best(x, score, restarts, second * len(x)) for x, score in zip(xs, scores, strict=True)]


def _by_observation(attacks: Attacks, rows: Rows) -> Tensor:
    """An order of the rows in which those that attack the same released gradient are neighbours."""
    views = [id(view) for _, view in attacks]
    which = torch.tensor([views.index(view) for view in views])[rows.setting]
    most = max(rows.clients)
    return (which * most + rows.client).argsort(stable=True)


def _fitting(attacks: Attacks, rows: Rows, seed: int, wanted: int) -> int:
    """How many of the wanted attacks to hold at once, by one step of these few."""
    x = _starts(attacks, rows, seed)
    if wanted == len(x):
        return wanted  # too few to be worth measuring
    short = [
        (replace(adversary, optimizer=replace(adversary.optimizer, steps=1)), view)
        for adversary, view in attacks
    ]
    fit = as_many_as_fit(
        lambda some: _climb(short, rows.part(some), x[some], seed), torch.arange(len(x)), x.device
    )
    return min(fit, AT_ONCE.get(x.device.type, 64))


def _informed(adversary: Adversary, view: ServerView) -> Adversary:
    """The adversary once it has seen the gradients, where its prior reads something off them."""
    given = getattr(adversary.prior, "given", None)
    return adversary if given is None else replace(adversary, prior=given(view))


def _attack_rows(attacks: Attacks, rows: Rows, seed: int) -> tuple[Tensor, Tensor]:
    """Run one attack for each row from its start: x (n, *shape) and log-posterior (n,)."""
    x = _climb(attacks, rows, _starts(attacks, rows, seed), seed)
    # The score is made of whole gradients and not of factors, whose rounding would decide between
    # restarts that fit almost perfectly; so it is made in small parts.
    size = max(1, SCORED_AT_ONCE // attacks[0][1].g.size)
    with torch.no_grad():
        score = torch.cat(
            [
                _objective(attacks, rows.part(part), like=x)[1](x[part], 1.0)
                for part in torch.arange(len(x)).split(size)
            ]
        )
    return x, score.nan_to_num(nan=-torch.inf)


def _climb(attacks: Attacks, rows: Rows, x: Tensor, seed: int) -> Tensor:
    optimizer = attacks[0][0].optimizer
    if optimizer.patience is None:
        adversary, f = _smoothed(attacks, rows, x, seed)
        return maximize(f, x, adversary.optimizer, adversary.prior.project)

    def part(left: Tensor) -> Part:
        adversary, f = _smoothed(attacks, rows.part(left), x, seed)
        return f, adversary.optimizer, adversary.prior.project

    # While the likelihood is still tempered, the log-posterior may fall on the way.
    tempered = any(bool((torch.as_tensor(a.temperature) > 1).any()) for a, _ in attacks)
    first_look = optimizer.steps // 2 if tempered else 0
    return maximize_with_patience(part, x, optimizer, first_look)


def _smoothed(
    attacks: Attacks, rows: Rows, like: Tensor, seed: int
) -> tuple[Adversary, Callable[[Tensor, float], Tensor]]:
    """The same as `_objective`, averaged over a ball where the adversaries ask for one."""
    ball = attacks[0][0].ball
    if ball is None:
        return _objective(attacks, rows, like)
    points = rows.part(torch.arange(len(rows.client)).repeat_interleave(ball.samples))
    _, f = _objective(attacks, points, like)
    adversary = merge([adversary for adversary, _ in attacks], rows, like)
    return adversary, adversary.ball.around(f, _keys(attacks, rows, seed))


def _objective(
    attacks: Attacks, rows: Rows, like: Tensor
) -> tuple[Adversary, Callable[[Tensor, float], Tensor]]:
    """One adversary that stands for all rows, and its log-posterior of them."""
    adversary = merge([adversary for adversary, _ in attacks], rows, like)
    where = _attacked(attacks, rows)
    y = torch.stack([view.labels[c] for view, c in where])
    return adversary, log_posterior(adversary, _observed(where), y)


def _attacked(attacks: Attacks, rows: Rows) -> list[tuple[ServerView, int]]:
    """The view and the place in it that each row attacks."""
    pairs = zip(rows.setting.tolist(), rows.client.tolist(), strict=True)
    return [(attacks[s][1], c) for s, c in pairs]


def _observed(where: Sequence[tuple[ServerView, int]]) -> Gradient:
    """The released gradients that rows attack; each stored once if equally many attack each."""
    runs = [list(run) for _, run in itertools.groupby(where, key=lambda w: (id(w[0]), w[1]))]
    if len({len(run) for run in runs}) == 1:
        where = [run[0] for run in runs]
    view, first = where[0]
    if all(v is view and c == first + k for k, (v, c) in enumerate(where)):
        return view.g.rows(slice(first, first + len(where)))  # no copy
    return Gradient({k: torch.stack([v.g[k][c] for v, c in where]) for k in view.g})


def _keys(attacks: Attacks, rows: Rows, seed: int) -> list[tuple[int, int, int]]:
    """What the randomness of each row depends on: (seed, client's key, restart)."""
    where = zip(_attacked(attacks, rows), rows.restart.tolist(), strict=True)
    return [(seed, view.key[c], restart) for (view, c), restart in where]


def _starts(attacks: Attacks, rows: Rows, seed: int) -> Tensor:
    """Uniform noise in [0, 1], one draw for each row."""
    view = attacks[0][1]
    draws = [
        torch.rand(view.shape, generator=generator(START, *key))
        for key in _keys(attacks, rows, seed)
    ]
    return torch.stack(draws).to(next(iter(view.g.values())))


def _best(x: Tensor, score: Tensor, restarts: int, seconds: float) -> Reconstruction:
    score = score.reshape(-1, restarts)
    best, every = score.argmax(1), torch.arange(len(score), device=score.device)
    x = x.reshape(len(score), restarts, *x.shape[1:])
    return Reconstruction(x[every, best], score[every, best], score, seconds)
