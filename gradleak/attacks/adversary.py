"""Attacks that climb: maximise log p(g | x, y) + log p(x) over x, many at once.

An adversary is a belief about the client and a prior about images. `gradleak.attacks.presets` has
those of the literature.
"""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from gradleak import look
from gradleak.attacks.attack import Attack, Reconstruction, SlopeWarning, refuse_blind
from gradleak.attacks.maximise import Adam, Objective, Part, Smoothing, maximize_parts
from gradleak.attacks.stack import Row, merge
from gradleak.client import Client, ServerView
from gradleak.defenses import Defense, Distribution, Uninformative
from gradleak.device import as_many_as_fit, in_chunks, ordinary
from gradleak.gradients import Gradient
from gradleak.priors import END, Moment, Prior, check_prior
from gradleak.randomness import START, generator
from gradleak.scales import Scale, check_kind, check_scale, check_whole


@dataclass(frozen=True)
class Adversary(Attack):
    """What an attacker believes, p(g | x, y) and p(x), and how it searches.

    ball: average the log-posterior over a ball around x (paper, section 4), or over what else is
    unknown (`gradleak.attacks.FreshLatents`); None: take it at x.
    temperature: the likelihood enters as log p(g | x, y) / temperature, which falls
    geometrically from this value (at least 1, or (N,)) to 1 over the first half of the steps.
    restarts: starts of each attack, of which the most probable result is kept.
    """

    client: Client
    prior: Prior
    optimizer: Adam = Adam()
    temperature: Scale = 1.0
    ball: Smoothing | None = None
    restarts: int = 1

    def __post_init__(self) -> None:
        check_kind("client", self.client, Client)
        check_prior("prior", self.prior)
        check_kind("optimizer", self.optimizer, Adam, "such as Adam(steps=200)")
        check_scale("temperature", self.temperature, "[1, 1e18]")
        check_whole("restarts", self.restarts, 1)
        if self.ball is not None:
            check_kind("ball", self.ball, Smoothing, "such as Ball(1.0), or None")

    @property
    def belief(self) -> Defense:
        """The defense that the adversary believes in."""
        return self.client.defense

    def attack(self, view: ServerView, seed: int = 0) -> Reconstruction:
        """Attack every client of the view; see `attack_all`."""
        return attack_all([(self, view)], seed)[0]

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


def log_posterior(adversary: Adversary, g: Gradient, y: Tensor) -> Objective:
    """log p(x | g, y) + const as a function of x and of the moment of the climb."""
    client, prior = adversary.client, adversary.prior

    def f(x: Tensor, moment: Moment = END) -> Tensor:
        temperature = adversary.temperature ** max(1 - 2 * moment.progress, 0)
        return client.log_prob(g, x, y) / temperature + prior.at(moment).log_prob(x)

    return f


AT_ONCE = {"cpu": 64, "cuda": 4096}  # attacks held at a time; on a CPU more were not faster
SCORED_AT_ONCE = 2**24  # entries of the gradients that are held to score attacks at the end


@ordinary
def attack_all(
    attacks: Sequence[tuple[Adversary, ServerView]], seed: int = 0, chunk: int | None = None
) -> list[Reconstruction]:
    """Each adversary against every client of its view, all in one computation.

    The adversaries may differ in floats only (scale, weight, lr, decay, temperature) and the
    views in what was released; the result equals that of one call for each. A start depends on
    (seed, client's key, restart) only. `chunk` attacks are held in memory at a time (None: as many
    as are fast and fit), half as many where it runs out. Raises ValueError where labels are hidden,
    for views that tell nothing (`ServerView.check`), for adversaries of another network than the
    view's (`check_belief`), and where g tells nothing at any start. Where that is so at some, or a
    slope was not finite, a `SlopeWarning` says so.
    """
    if not attacks:
        raise ValueError("nothing to attack: give at least one adversary with its view")
    if chunk is not None:
        check_whole("chunk", chunk, 1, "None takes as many as are fast and fit")
    for adversary, view in attacks:
        check_kind("adversary", adversary, Adversary)
        check_kind("view", view, ServerView, "what `Client.release` returns")
    for view in {id(view): view for _, view in attacks}.values():
        view.check(seed)
    begin = time.perf_counter()
    for adversary, view in attacks:
        view.check_belief(adversary.client)
        _look(adversary, view)
    batch = Batch.of(attacks, seed)
    order = batch.by_observation()
    chunk = chunk or _fitting(batch, order)
    blind = torch.cat(in_chunks(lambda index: batch.part(index).blind(), order, chunk))
    refuse_blind(blind)
    parts = in_chunks(lambda index: batch.part(index).found(), order, chunk)
    second = (time.perf_counter() - begin) / len(order)
    restarts = attacks[0][0].restarts
    counts = [len(view) * restarts for _, view in attacks]
    found = [*(torch.cat(each) for each in zip(*parts, strict=True)), blind]
    _warn_of_slopes(found[2], blind)
    back = (each[order.argsort()].split(counts) for each in found)
    return [_best(*each, restarts, second * len(each[0])) for each in zip(*back, strict=True)]


@dataclass(frozen=True)
class Batch:
    """Attacks that are computed together: adversaries with their views, and who each row is."""

    attacks: Sequence[tuple[Adversary, ServerView]]
    rows: Sequence[Row]
    seed: int

    @classmethod
    def of(cls, attacks: Sequence[tuple[Adversary, ServerView]], seed: int) -> Batch:
        """Each restart of each adversary against each client of its view."""
        # A prior may read something off the gradients first.
        attacks = [
            (replace(a, client=a.client.in_float32, prior=a.prior.given(view)), view)
            for a, view in attacks
        ]
        restarts = attacks[0][0].restarts  # all have as many: `merge` sees to it
        clients = [(s, c) for s, (_, view) in enumerate(attacks) for c in range(len(view))]
        return cls(attacks, [(s, c, r) for s, c in clients for r in range(restarts)], seed)

    def part(self, index: Tensor) -> Batch:
        """Some of the rows."""
        return replace(self, rows=[self.rows[i] for i in index.tolist()])

    def by_observation(self) -> Tensor:
        """An order in which rows that attack the same released gradient are neighbours."""
        which: dict[int, int] = {}
        where = [(which.setdefault(id(view), len(which)), c) for view, c in self.attacked]
        return torch.tensor(sorted(range(len(where)), key=where.__getitem__))

    @cached_property
    def attacked(self) -> list[tuple[ServerView, int]]:
        """The view and the place in it that each row attacks."""
        return [(self.attacks[s][1], c) for s, c, _ in self.rows]

    @property
    def keys(self) -> list[tuple[int, int, int]]:
        """What the randomness of each row depends on: (seed, client's key, restart)."""
        return [(self.seed, self.attacks[s][1].key[c], restart) for s, c, restart in self.rows]

    def starts(self) -> Tensor:
        """Uniform noise in [0, 1], one draw for each row."""
        view = self.attacks[0][1]
        draws = [torch.rand(view.shape, generator=generator(START, *key)) for key in self.keys]
        return torch.stack(draws).to(next(iter(view.g.values())))

    def observed(self) -> Gradient:
        """The released gradients that rows attack; each stored once if equally many attack each."""
        where = self.attacked
        runs = [list(run) for _, run in itertools.groupby(where, key=lambda w: (id(w[0]), w[1]))]
        if len({len(run) for run in runs}) == 1:
            where = [run[0] for run in runs]
        view, first = where[0]
        if all(v is view and c == first + k for k, (v, c) in enumerate(where)):
            return view.g.rows(slice(first, first + len(where)))  # no copy
        return Gradient({k: torch.stack([v.g[k][c] for v, c in where]) for k in view.g})

    def adversary(self, like: Tensor) -> Adversary:
        """One that stands for all rows, its numbers where `like` is."""
        clients = [len(view) for _, view in self.attacks]
        return merge([adversary for adversary, _ in self.attacks], self.rows, clients, like)

    def plain(self, like: Tensor) -> Objective:
        """The log-posterior of all rows."""
        y = torch.stack([view.labels[c] for view, c in self.attacked])
        return log_posterior(self.adversary(like), self.observed(), y)

    def objective(self, like: Tensor) -> Objective:
        """The same, averaged over a ball where the adversaries ask for one."""
        ball = self.adversary(like).ball
        if ball is None:
            return self.plain(like)
        points = torch.arange(len(self.rows)).repeat_interleave(ball.samples)
        return ball.around(self.part(points).plain(like), self.keys)

    def blind(self) -> Tensor:
        """Whether the slope of log p(g | x, y) is zero at a row's start, (n,), though g is used."""
        believed = [adversary.belief for adversary, _ in self.attacks]
        x = self.starts()
        if all(isinstance(belief, Uninformative) for belief in believed):
            return torch.zeros(len(x), dtype=torch.bool, device=x.device)
        y = torch.stack([view.labels[c] for view, c in self.attacked])
        slope = self.adversary(x).client.slope(self.observed(), x, y)
        return (slope == 0).flatten(1).all(1)

    def climb(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Where the rows end that start at x (n, *shape), and since when each stood still, (n,)."""

        def part(index: Tensor) -> Part:
            some = self.part(index)
            adversary = some.adversary(x)
            return some.objective(x), adversary.optimizer, adversary.prior.project

        # While the likelihood is still tempered, the log-posterior may fall on the way.
        tempered = any((torch.as_tensor(a.temperature) > 1).any() for a, _ in self.attacks)
        optimizer = self.attacks[0][0].optimizer
        return maximize_parts(part, x, optimizer, optimizer.steps // 2 if tempered else 0)

    def found(self) -> tuple[Tensor, Tensor, Tensor]:
        """Run each attack from its start: x (n, *shape), log-posterior and last step, (n,) each."""
        x, stopped = self.climb(self.starts())
        # The score is made of whole gradients and not of factors, whose rounding would decide
        # between restarts that fit almost perfectly; so it is made in small parts.
        size = max(1, SCORED_AT_ONCE // self.attacks[0][1].g.size)
        with torch.no_grad():
            parts = torch.arange(len(x)).split(size)
            scores = [self.part(index).plain(like=x)(x[index], END) for index in parts]
        return x, torch.cat(scores).nan_to_num(nan=-torch.inf), stopped


def _look(adversary: Adversary, view: ServerView) -> None:
    """Look at a belief and a prior of one's own, once, at two starts."""
    client, prior, how = adversary.client, adversary.prior, ("climbed", view.shape)
    if not len(view) or not (look.due(client.defense, *how) or look.due(prior, *how)):
        return
    view = view[[0, min(1, len(view) - 1)]]
    like = next(iter(view.g.values()))
    x = look.unlike(torch.rand(2, *view.shape, generator=generator(START, 0)).to(like))
    if look.due(client.defense, *how):
        g = client.gradient(x, view.labels).map(lambda v: v.detach().requires_grad_())

        def held(rows: slice) -> Distribution:
            return client.defense_at(x[rows])(g.rows(rows))

        look.at_defense(client.defense, held, g, view.g)
        look.done(client.defense, *how)
    if look.due(prior, *how):
        steps = max(1, adversary.optimizer.steps)
        moment, held = Moment(0, steps), prior.given(view)
        look.at_prior(prior, lambda rows: (prior.given(view[rows]), moment), x)
        for step in range(steps + 1):
            at = held.at(Moment(step, steps))
            check_prior(f"the prior {prior!r:.100}: what at(moment) returns at step {step}", at)
        look.done(prior, *how)


def _fitting(batch: Batch, order: Tensor) -> int:
    """How many of the attacks to hold at once, by one step of a few of them."""
    few = batch.part(order[:3])
    x = few.starts()
    if len(order) == len(x):
        return len(x)  # too few to be worth measuring
    short = [(replace(a, optimizer=replace(a.optimizer, steps=1)), view) for a, view in few.attacks]
    few = replace(few, attacks=short)
    fit = as_many_as_fit(lambda some: few.part(some).climb(x[some]), torch.arange(len(x)), x.device)
    return min(fit, AT_ONCE.get(x.device.type, 64))


def _best(
    x: Tensor, score: Tensor, stopped: Tensor, blind: Tensor, restarts: int, seconds: float
) -> Reconstruction:
    score, stopped, blind = (v.reshape(-1, restarts) for v in (score, stopped, blind))
    best, every = score.argmax(1), torch.arange(len(score), device=score.device)
    x = x.reshape(len(score), restarts, *x.shape[1:])
    return Reconstruction(
        x[every, best], score[every, best], score, seconds, stopped=stopped, blind=blind
    )


def _warn_of_slopes(stopped: Tensor, blind: Tensor) -> None:
    if (ended := stopped >= 0).any():
        warnings.warn(
            f"{int(ended.sum())} of {len(stopped)} climbs met a slope that is not finite, from "
            f"step {int(stopped[ended].min())} on, and stood still (Reconstruction.stopped). x "
            "left what the network takes (log, sqrt, division): use a prior whose `project` keeps "
            "x inside, such as gradleak.Box() for [0, 1] or a class of your own, or a smaller lr",
            SlopeWarning,
            stacklevel=4,
        )
    if blind.any():
        warnings.warn(
            f"at {int(blind.sum())} of {len(blind)} starts g tells nothing, its log-density's "
            "slope in x is zero (Reconstruction.blind): more restarts, or a belief of larger scale",
            SlopeWarning,
            stacklevel=4,
        )
