"""Defenses that leave parts of the gradient out, always the same ones for the same image.

What they release is a point mass, without a density: an adversary leaves out what was hidden, by
`gradleak.Ignore` or `gradleak.Survivors`.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradleak.defenses.distributions import PointMass
from gradleak.defenses.noise import RATE, Defense, InputDefense
from gradleak.gradients import ALONE, Gradient
from gradleak.randomness import DIRECTION, generator
from gradleak.scales import POSITIVE, check_kind, check_number

FEATURES_AT_ONCE, EXAMPLES_AT_ONCE = 100, 10  # rows of the Jacobian that are held at a time


@dataclass(frozen=True)
class MagnitudePruning:
    """Set the smallest entries of each parameter's gradient to zero.

    rate: the share that is set to zero, in [0, 1); ValueError otherwise. An entry is hidden if its
    magnitude is below that quantile, so of equal ones (such as zeros) all or none.
    """

    rate: float

    def __post_init__(self) -> None:
        check_number("rate", self.rate, RATE)

    def __call__(self, gradient: Gradient) -> PointMass:
        """A point mass at the gradient that is left."""

        def pruned(v: Tensor) -> Tensor:
            size = v.reshape(len(v), -1).abs()
            least = size.kthvalue(_hidden(self.rate, size.shape[1]) + 1, dim=1, keepdim=True).values
            return v * (size >= least).view_as(v)

        return PointMass(gradient.map(pruned))


@dataclass(frozen=True)
class Soteria(InputDefense):
    """Hide the features of a representation that tell most about the input (Sun et al. 2021).

    layer: name of the linear layer after the representation r; its weight's gradient loses the
    columns of the hidden features, and everything else is released. rate: the share of features
    that is hidden, in [0, 1): those with the smallest |dr_f / dx|_2 / (r_f + stabiliser), where x
    are pixels in [0, 1]. Equal ones are hidden in their order, so that the share is kept where many
    are zero. Raises ValueError for other rates, and at release for a name that is no linear layer
    and a representation that does not depend on x.
    """

    layer: str
    rate: float
    stabiliser: float = 0.1

    def __post_init__(self) -> None:
        check_kind("layer", self.layer, str, "give the name of a linear layer")
        check_number("rate", self.rate, RATE)
        check_number("stabiliser", self.stabiliser, POSITIVE)

    def at(self, model: nn.Module, x: Tensor) -> Defense:
        """The defense of clients that hold x (N, *shape): the columns depend on the example."""
        mask = {f"{self.layer}.weight": (~self.hidden(model, x)).to(x).unsqueeze(1)}
        return lambda gradient: PointMass(gradient.masked(mask))

    def hidden(self, model: nn.Module, x: Tensor) -> Tensor:
        """Which features are hidden for each example x (N, *shape): boolean, (N, F)."""
        score = self.score(model, x)
        dead = ~(score > 0).any(1)
        if dead.any():
            raise ValueError(
                f"no feature in front of '{self.layer}' changes with example "
                f"{', '.join(map(str, dead.nonzero().flatten().tolist()[:5]))}: the representation "
                "is dead, and hiding parts of it would hide nothing; check the model's weights"
            )
        order = score.argsort(dim=1, stable=True)[:, : _hidden(self.rate, score.shape[1])]
        return torch.zeros_like(score, dtype=torch.bool).scatter_(1, order, True)

    def score(self, model: nn.Module, x: Tensor) -> Tensor:
        """|dr_f / dx|_2 / |r_f + stabiliser| of each feature f of each example, (N, F)."""
        return torch.cat([self._score(model, part) for part in x.detach().split(EXAMPLES_AT_ONCE)])

    @torch.enable_grad()
    def _score(self, model: nn.Module, x: Tensor) -> Tensor:
        x = x.requires_grad_()
        r = _input_of(self.layer, model, x)
        # The Jacobian times a random vector is zero where its row is, almost surely.
        direction = torch.randn(x.shape, dtype=torch.float32, generator=generator(DIRECTION)).to(x)
        weight = torch.zeros_like(r, requires_grad=True)
        (slope,) = torch.autograd.grad(r, x, weight, create_graph=True)
        live = torch.autograd.grad(slope, weight, direction, retain_graph=True)[0] != 0
        live_first = live.sort(dim=1, descending=True, stable=True).indices
        norm = torch.zeros_like(r)
        most = int(live.sum(1).max())
        for begin in range(0, most, FEATURES_AT_ONCE):
            some = live_first[:, begin : min(begin + FEATURES_AT_ONCE, most)]
            # One row of the Jacobian for each of them: feature some[n, k] of example n.
            row = torch.zeros(some.shape[1], *r.shape).to(r).scatter_(2, some.T.unsqueeze(2), 1)
            (slope,) = torch.autograd.grad(r, x, row, retain_graph=True, is_grads_batched=True)
            norm.scatter_(1, some, slope.flatten(2).norm(dim=2).T)
        return norm / (r.detach() + self.stabiliser).abs()


def _hidden(rate: float, count: int) -> int:
    """How many of `count` values lie below their quantile `rate` (linear interpolation)."""
    return math.ceil(rate * (count - 1) - 1e-9)  # what is less than that is rounding


def _input_of(name: str, model: nn.Module, x: Tensor) -> Tensor:
    """What enters a linear layer, (N, F)."""
    linear = {k: m for k, m in model.named_modules() if isinstance(m, nn.Linear)}
    if name not in linear:
        raise ValueError(f"'{name}' is no linear layer of the model; those are {', '.join(linear)}")
    seen: list[Tensor] = []
    with ALONE:
        hook = linear[name].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            model(x)
        finally:
            hook.remove()
    if len(seen) != 1 or seen[0].ndim != 2:
        raise ValueError(
            f"'{name}' must be called once for each example, with one vector of features"
        )
    return seen[0]
