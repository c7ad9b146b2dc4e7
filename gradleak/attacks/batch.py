"""Attacks that are computed together: a row each, and what the rows climb."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gradleak.attacks.maximise import Climbed, Objective, Optimizer, Part, maximize_parts
from gradleak.attacks.posterior import log_posterior, recorded
from gradleak.attacks.stack import Row, merge
from gradleak.client import ServerView
from gradleak.defenses import Uninformative
from gradleak.device import out_of_memory
from gradleak.gradients import Gradient, replay
from gradleak.priors import END, Moment
from gradleak.randomness import START, generator

if TYPE_CHECKING:
    from gradleak.attacks.adversary import Adversary

SCORED_AT_ONCE = 2**24  # entries of the gradients that are held to score attacks at the end


@dataclass(frozen=True)
class Batch:
    """Attacks that are computed together: adversaries with their views, and who each row is.

    replayed: where it repays. held: the moment of a climb at which what changes on the way is held.
    begin: for each view the first start of each attack, (N, *shape); None: noise, as all others.
    """

    attacks: Sequence[tuple[Adversary, ServerView]]
    rows: Sequence[Row]
    seed: int
    begin: Sequence[Tensor | None]
    replayed: bool = True
    held: Moment | None = None

    @classmethod
    def of(
        cls, attacks: Sequence[tuple[Adversary, ServerView]], seed: int,
        begin: Sequence[Tensor | None] = (),
    ) -> Batch:  # fmt: skip
        """Each restart of each adversary against each client of its view."""
        # A prior may read something off the gradients first.
        attacks = [
            (replace(a, client=a.client.in_float32, prior=a.prior.given(view), start=None), view)
            for a, view in attacks
        ]
        restarts = attacks[0][0].restarts  # all have as many: `merge` sees to it
        clients = [(s, c) for s, (_, view) in enumerate(attacks) for c in range(len(view))]
        rows = [(s, c, r) for s, c in clients for r in range(restarts)]
        return cls(attacks, rows, seed, begin or [None] * len(attacks))

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
        """Where each row starts: uniform noise in [0, 1], if nothing else is said."""
        view = self.attacks[0][1]
        like = next(iter(view.g.values()))

        def start(row: Row, key: tuple[int, int, int]) -> Tensor:
            setting, client, restart = row
            if self.begin[setting] is not None and not restart:
                return self.begin[setting][client].to(like)
            rng = generator(START, *key)
            return torch.rand(view.shape, dtype=torch.float32, generator=rng).to(like)

        return torch.stack(list(map(start, self.rows, self.keys)))

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

    def plain(self, like: Tensor, replayed: bool = False) -> Objective:
        """The log-posterior of all rows."""
        made = recorded if replayed else log_posterior
        return made(self.adversary(like), self.observed(), self._labels(), self.held)

    def objective(self, like: Tensor) -> Objective:
        """What is climbed: the same, averaged over a ball where the adversaries ask for one."""
        ball, replayed = self.adversary(like).ball, self.replays()
        if ball is None:
            return self.plain(like, replayed)
        points = torch.arange(len(self.rows)).repeat_interleave(ball.samples)
        return ball.around(self.part(points).plain(like, replayed), self.keys)

    def blind(self) -> Tensor:
        """Whether the slope of log p(g | x, y) is zero at a row's start, (n,), though g is used."""
        believed = [adversary.belief for adversary, _ in self.attacks]
        x = self.starts()
        if all(isinstance(belief, Uninformative) for belief in believed):
            return torch.zeros(len(x), dtype=torch.bool, device=x.device)
        slope = self.adversary(x).client.slope(self.observed(), x, self._labels())
        return (slope == 0).flatten(1).all(1)

    @property
    def pixels(self) -> int:
        """Positions in all that a row has in flight: of its examples, and of its ball's points."""
        first, view = self.attacks[0]
        examples = first.client.batch_size or 1
        shape = view.shape if first.client.batch_size is None else view.shape[1:]
        points = 1 if first.ball is None else first.ball.samples
        return points * examples * math.prod(shape[1:] if len(shape) == 3 else shape)

    def replays(self) -> bool:
        """Whether its climbs are replayed, so that they run side by side without a network."""
        first, view = self.attacks[0]
        if not (self.replayed and replay.repays(first.optimizer.stretch)):
            return False
        x = self.part(torch.arange(1)).starts().requires_grad_()
        with torch.enable_grad():
            return first.client.path(x, view.labels[:1]) != "loop"

    def maximized(self, x: Tensor) -> Climbed:
        """Where the rows end that start at x (n, *shape), and since when each stood still, (n,)."""

        def part(index: Tensor) -> Part:
            some = self.part(index)
            adversary = some.adversary(x)
            return some.objective(x), adversary.optimizer, adversary.prior.project

        # While the likelihood is still tempered, the log-posterior may fall on the way.
        tempered = any(adversary.tempered for adversary, _ in self.attacks)
        optimizer = self.attacks[0][0].optimizer
        falls = tempered and self.held is None
        return maximize_parts(part, x, optimizer, optimizer.steps // 2 if falls else 0)

    def by(self, climb: Callable[[Any], Optimizer]) -> Batch:
        """The same attacks, each of which climbs as `climb(its optimizer)` does."""
        attacks = [(replace(a, optimizer=climb(a.optimizer)), view) for a, view in self.attacks]
        return replace(self, attacks=attacks)

    def rounded(self, width: float, corner: float, held: Moment) -> Batch:
        """The same attacks on a posterior whose corners are rounded off."""

        def of(adversary: Adversary, shape: tuple[int, ...]) -> Adversary:
            client, prior = adversary.client.rounded(width, shape), adversary.prior.rounded(corner)
            return replace(adversary, client=client, prior=prior)

        attacks = [(of(adversary, view.shape), view) for adversary, view in self.attacks]
        return replace(self, attacks=attacks, held=held)

    @torch.no_grad()
    def score(self, x: Tensor) -> Tensor:
        """The log-posterior itself at x (n, *shape), (n,), -inf where it is not a number.

        Made of whole gradients and not of factors, whose rounding would decide between restarts
        that fit almost perfectly; so it is made in small parts.
        """
        return self._in_parts(lambda some, x: some.plain(like=x)(x, END), x)

    @torch.no_grad()
    def exact(self, x: Tensor) -> Tensor:
        """The same in float64, which takes twice the memory and more of the time."""
        return self._in_parts(Batch._exact, x)

    def _in_parts(self, score: Callable[[Batch, Tensor], Tensor], x: Tensor) -> Tensor:
        parts = torch.arange(len(x)).split(max(1, SCORED_AT_ONCE // self.attacks[0][1].g.size))
        scores = torch.cat([score(self.part(index), x[index]) for index in parts])
        return scores.nan_to_num(nan=-torch.inf)

    def _exact(self, x: Tensor) -> Tensor:
        adversary, y = self.adversary(x.double()), self._labels()
        prior = adversary.prior.at(END).log_prob(x).double()  # of networks, in their precision
        try:
            g = self.observed().map(Tensor.double)
            return prior + adversary.client.in_float64.log_prob(g, x.double(), y)
        except (RuntimeError, TypeError) as error:  # parts of one's own may know float32 alone
            if out_of_memory(error):
                raise
        return prior + adversary.client.log_prob(self.observed(), x, y)

    def _labels(self) -> Tensor:
        return torch.stack([view.labels[c] for view, c in self.attacked])

    def found(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Run each attack: x (n, *shape), log-posterior, last step, which climb won, (n,) each."""
        x, stopped, which = self._climbed()
        return x, self.score(x), stopped, which

    def _climbed(self) -> Climbed:
        """Where the rows end: once more without a record, if that went another way."""
        how = self.attacks[0][0].optimizer
        try:
            return how.climb(self, self.starts())
        except replay.ReplayError as error:
            warnings.warn(f"the climb begins again without its record: {error}", stacklevel=2)
        return how.climb(replace(self, replayed=False), self.starts())
