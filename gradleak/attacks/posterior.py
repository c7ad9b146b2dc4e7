"""log p(x | g, y) + const: what attacks climb, as it stands, or recorded once and replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gradleak import look
from gradleak.attacks.maximise import Objective
from gradleak.client import Client
from gradleak.gradients import Gradient, replay, slope
from gradleak.priors import END, Moment
from gradleak.scales import Scale, per_attack

if TYPE_CHECKING:
    from gradleak.attacks.adversary import Adversary

Likelihood = Callable[[Tensor, Scale], Tensor]
"""log p(g | x, y) / temperature as a function of x and of the temperature, (N,)."""


def log_posterior(
    adversary: Adversary, g: Gradient, y: Tensor, held: Moment | None = None
) -> Objective:
    """log p(x | g, y) + const as a function of x and of the moment of the climb.

    held: the moment at which what changes on the way is held; None: it changes.
    """
    likelihood, prior = _likelihood(adversary.client, g, y), adversary.prior

    def f(x: Tensor, moment: Moment = END) -> Tensor:
        at = held or moment
        return likelihood(x, _temperature(adversary, at)) + prior.at(at).log_prob(x)

    return f


def recorded(adversary: Adversary, g: Gradient, y: Tensor, held: Moment | None = None) -> Objective:
    """The same, recorded once and then replayed; a prior that changes on the way runs beside it."""
    likelihood, prior = _likelihood(adversary.client, g, y), adversary.prior
    known = look.known(prior)
    alone = _replayed(likelihood)
    whole = _replayed(lambda x, temperature: likelihood(x, temperature) + prior.log_prob(x))

    def f(x: Tensor, moment: Moment = END) -> Tensor:
        at = held or moment
        temperature, now = _temperature(adversary, at), prior.at(at)
        last = moment.step == moment.steps - 1
        if known and now is prior:
            return whole(x, temperature, last)
        return alone(x, temperature, last) + now.log_prob(x)

    return f


def _temperature(adversary: Adversary, moment: Moment) -> Scale:
    return adversary.temperature ** max(1 - 2 * moment.progress, 0)


def _likelihood(client: Client, g: Gradient, y: Tensor) -> Likelihood:
    return lambda x, temperature: client.log_prob(g, x, y) / temperature


def _replayed(likelihood: Likelihood) -> Callable[[Tensor, Scale, bool], Tensor]:
    """The same, whose slope is computed with it: recorded once, then replayed or, to check, run."""

    @replay.Replayed
    @torch.enable_grad()
    def run(x: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        value = likelihood(x, temperature)
        return value.detach(), slope(value.sum(), x)

    def climbed(x: Tensor, temperature: Scale, check: bool) -> Tensor:
        return _ValueAndSlope.apply(x, torch.as_tensor(temperature).to(x), run, check)

    return climbed


class _ValueAndSlope(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, temperature: Tensor, run: replay.Replayed, check: bool
    ) -> Tensor:
        value, ctx.slope = run(x, temperature, check=check)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        return per_attack(upstream, ctx.slope) * ctx.slope, None, None, None
