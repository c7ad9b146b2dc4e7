"""Attacks that climb: maximise log p(g | x, y) + log p(x) over x, many at once.

An adversary is a belief about the client and a prior about images. `gradleak.attacks.presets` has
those of the literature.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradleak import look
from gradleak.attacks.adam import Adam
from gradleak.attacks.attack import (
    Attack,
    Reconstruction,
    SlopeWarning,
    asked,
    check_view,
    refuse_blind,
)
from gradleak.attacks.batch import Batch
from gradleak.attacks.lbfgs import LBFGS
from gradleak.attacks.maximise import Optimizer
from gradleak.attacks.smoothing import Smoothing
from gradleak.client import Client, ServerView
from gradleak.defenses import Defense, Distribution
from gradleak.device import (
    as_many_as_fit,
    cores,
    follows,
    in_chunks,
    ordinary,
    side_by_side,
    threads,
)
from gradleak.priors import Moment, Prior, check_prior
from gradleak.randomness import START, generator
from gradleak.scales import Scale, check_kind, check_scale, check_whole, refuse


@dataclass(frozen=True)
class Adversary(Attack):
    """What an attacker believes, p(g | x, y) and p(x), and how it searches.

    ball: average the log-posterior over a ball around x (paper, section 4), or over what else is
    unknown (`gradleak.attacks.FreshLatents`); None: take it at x.
    temperature: the likelihood enters as log p(g | x, y) / temperature, which falls
    geometrically from this value (at least 1, or (N,)) to 1 over the first half of the steps.
    restarts: starts of each attack, of which the most probable result is kept.
    start: an attack whose answer is the first start, such as `Features` or one that has learnt;
    None: noise, as all other starts are.
    """

    client: Client
    prior: Prior
    optimizer: Optimizer = Adam()
    temperature: Scale = 1.0
    ball: Smoothing | None = None
    restarts: int = 1
    start: Attack | None = None

    def __post_init__(self) -> None:
        check_kind("client", self.client, Client)
        check_prior("prior", self.prior)
        check_kind("optimizer", self.optimizer, Optimizer, "such as Adam(steps=200)")
        check_scale("temperature", self.temperature, "[1, 1e18]")
        check_whole("restarts", self.restarts, 1)
        if self.start is not None:
            check_kind("start", self.start, Attack, "such as Features('dense1'), or None")
        if self.ball is not None:
            check_kind("ball", self.ball, Smoothing, "such as Ball(1.0), or None")
            if isinstance(self.ball, type):
                refuse("ball", "an instance, such as Ball(1.0), or None", self.ball)
        if self.optimizer.compares and self.ball is not None:
            refuse("ball", "None where the climb compares values", self.ball, "climb with Adam")

    @property
    def belief(self) -> Defense:
        """The defense that the adversary believes in."""
        return self.client.defense

    @property
    def tempered(self) -> bool:
        """Whether the temperature is above 1 for any attack."""
        return bool((torch.as_tensor(self.temperature) > 1).any())

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
        } | ({} if self.start is None else {"start": repr(self.start)})


# Attacks held at a time, and pixels of theirs. Twice as many of either took 2 to 3 % less time on a
# CPU, of images of 32 and 128 pixels a side and of clients of 16.
AT_ONCE = {"cpu": 256, "cuda": 4096}
IN_FLIGHT = {"cpu": 2**18, "cuda": 2**24}
A_WORKERS = 2**13  # pixels that keep a worker busy; with fewer it waits for Python


@ordinary
def attack_all(
    attacks: Sequence[tuple[Adversary, ServerView]],
    seed: int = 0,
    chunk: int | None = None,
    starts: Sequence[Tensor] | None = None,
) -> list[Reconstruction]:
    """Each adversary against every client of its view, all in one computation.

    The adversaries may differ in floats only (scale, weight, lr, decay, temperature) and the
    views in what was released; the result equals that of one call for each. A start depends on
    (seed, client's key, restart) only; the first of each attack is what `starts` says, (N, *shape)
    for each view, or else what the adversary's `start` answers. `chunk` attacks are held in memory
    at a time (None: as many as are fast and fit), half as many where it runs out. Raises ValueError
    where labels are hidden, for views that tell nothing (`ServerView.check`), for adversaries of
    another network than the view's (`check_belief`), and where g tells nothing at any start that
    was drawn. Where that is so at some, or a slope was not finite, a `SlopeWarning` says so.
    """
    attacks = list(attacks)
    if not attacks:
        raise ValueError("nothing to attack: give at least one adversary with its view")
    if chunk is not None:
        check_whole("chunk", chunk, 1, "None takes as many as are fast and fit")
    for pair in attacks:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            refuse("attacks", "pairs (adversary, view)", pair)
        check_kind("adversary", pair[0], Adversary)
    for view in {id(view): view for _, view in attacks}.values():
        check_view(view, seed)
    if starts is not None:
        _check_rows("starts", starts, attacks)
        if not all(x.isfinite().all() for x in starts):
            raise ValueError("starts hold numbers that are not finite, from which no climb leads")
    if len({tuple(view.g) for _, view in attacks}) > 1:
        raise ValueError("the views hold other parameters each: attack those of one kind at a time")
    begin = time.perf_counter()
    for adversary, view in attacks:
        view.check_belief(adversary.client)
        if isinstance(adversary.optimizer, LBFGS) and adversary.tempered:
            cure = "let it fall in stages, Rounded(LBFGS()), or climb with Adam"
            refuse("temperature", "1.0 for one climb by L-BFGS", adversary.temperature, cure)
        _look(adversary, view)
    given = starts or [
        None if a.start is None else asked(a.start, view, seed).x for a, view in attacks
    ]
    batch = Batch.of(attacks, seed, given)
    order = batch.by_observation()
    chunk = chunk or _fitting(batch, order)
    if starts is None:
        blind = torch.cat(in_chunks(lambda index: batch.part(index).blind(), order, chunk))
        refuse_blind(blind)
    else:  # at the private image itself there is no slope
        like = next(iter(attacks[0][1].g.values()))
        blind = torch.zeros(len(order), dtype=torch.bool, device=like.device)
    parts = _found(batch, order, chunk)
    second = (time.perf_counter() - begin) / len(order)
    restarts = attacks[0][0].restarts
    counts = [len(view) * restarts for _, view in attacks]
    found = [*(torch.cat(each) for each in zip(*parts, strict=True)), blind]
    _warn_of_slopes(found[2], blind)
    back = (each[order.argsort()].split(counts) for each in found)
    names = attacks[0][0].optimizer.names
    return [
        _best(*each, restarts, names, second * len(each[0])) for each in zip(*back, strict=True)
    ]


@ordinary
def score_all(attacks: Sequence[tuple[Adversary, ServerView]], x: Sequence[Tensor]) -> list[Tensor]:
    """log p(x | g, y) + const at an x of each client, (N,) for each view, in float64.

    x: (N, *shape) for each view. `Reconstruction.log_posterior` holds the same in float32.
    """
    _check_rows("x", x, attacks)
    batch = Batch.of([(replace(a, restarts=1), view) for a, view in attacks], 0)
    return list(batch.exact(torch.cat(list(x))).split([len(each) for each in x]))


def _check_rows(
    name: str, x: Sequence[Tensor], attacks: Sequence[tuple[Adversary, ServerView]]
) -> None:
    wanted = [(len(view), *view.shape) for _, view in attacks]
    told = [tuple(rows.shape) if isinstance(rows, Tensor) else rows for rows in x]
    if told != wanted:
        refuse(name, f"a tensor for each view, of the shapes {wanted}", told)


def _found(batch: Batch, order: Tensor, chunk: int) -> list[tuple[Tensor, ...]]:
    """What all rows find, on a processor in the way that is quickest for so much work."""

    def run(index: Tensor) -> tuple[Tensor, ...]:
        return batch.part(index).found()

    most, first = torch.get_num_threads(), batch.attacks[0][0]
    on_cpu = first.optimizer.steps and next(iter(batch.attacks[0][1].g.values())).is_cpu
    if most == 1 or not on_cpu or not follows():
        return in_chunks(run, order, chunk)
    workers = min(most, cores(), batch.pixels * min(chunk, len(order)) // A_WORKERS)
    own = (part for a, _ in batch.attacks for part in (a.prior, a.client.defense, a.ball))
    if workers > 1 and all(map(look.known, own)) and batch.replays():
        return side_by_side(run, order, chunk, workers)
    few = batch.part(order[:chunk])
    with threads(_quickest(few, most) if workers < 2 else most):
        return in_chunks(run, order, chunk)


def _quickest(batch: Batch, most: int) -> int:
    """One thread where an operation has too little work for several, by one step of each."""
    seconds = {}
    for count in (most, 1):
        with threads(count):
            begin = time.perf_counter()
            batch.blind()
            seconds[count] = time.perf_counter() - begin
    return min(seconds, key=seconds.__getitem__)


def _look(adversary: Adversary, view: ServerView) -> None:
    """Look at a belief and a prior of one's own, once, at two starts."""
    client, prior, how = adversary.client, adversary.prior, ("climbed", view.shape)
    if not len(view) or not (look.due(client.defense, *how) or look.due(prior, *how)):
        return
    view = view[[0, min(1, len(view) - 1)]]
    like = next(iter(view.g.values()))
    x = look.unlike(
        torch.rand(2, *view.shape, dtype=torch.float32, generator=generator(START, 0)).to(like)
    )
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
    device = x.device.type if x.device.type in AT_ONCE else "cpu"
    most = max(1, min(AT_ONCE[device], IN_FLIGHT[device] // batch.pixels))
    if len(order) == len(x):
        return min(len(x), most)  # too few to be worth measuring
    short = [(replace(a, optimizer=a.optimizer.one_step()), view) for a, view in few.attacks]
    few = replace(few, attacks=short)
    fit = as_many_as_fit(
        lambda some: few.part(some).maximized(x[some]), torch.arange(len(x)), x.device
    )
    return min(fit, most)


def _best(
    x: Tensor, score: Tensor, stopped: Tensor, which: Tensor, blind: Tensor,
    restarts: int, names: Sequence[str], seconds: float,
) -> Reconstruction:  # fmt: skip
    score, stopped, blind = (v.reshape(-1, restarts) for v in (score, stopped, blind))
    best, every = score.argmax(1), torch.arange(len(score), device=score.device)
    x, which = x.reshape(len(score), restarts, *x.shape[1:]), which.reshape(-1, restarts)
    climbs = tuple(names[place] for place in which[every, best].tolist())
    return Reconstruction(
        x[every, best], score[every, best], score, seconds,
        stopped=stopped, blind=blind, climbs=climbs,
    )  # fmt: skip


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
