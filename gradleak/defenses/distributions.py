"""Distributions of a released gradient g, with the verbs of torch.distributions."""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from gradleak.defenses import tails
from gradleak.gradients import Gradient
from gradleak.randomness import HIDDEN_MASK, NOISE, generator
from gradleak.scales import (
    POSITIVE,
    Scale,
    check_call,
    check_kind,
    check_number,
    check_scale,
    per_attack,
)

Draw = Callable[[Tensor, torch.Generator], object]  # fills a tensor with random numbers


@runtime_checkable
class Distribution(Protocol):
    """p(g) for N attacks."""

    def sample(self, keys: Sequence[tuple[int, ...]]) -> Gradient:
        """Draw g; attack n's randomness comes from keys[n] alone."""

    def log_prob(self, g: Gradient) -> Tensor:
        """log p(g) of each attack, (N,)."""


@dataclass(frozen=True)
class Normal:
    """Independent Gaussian entries around `loc`, standard deviation `scale`."""

    loc: Gradient
    scale: Scale

    def __post_init__(self) -> None:
        _check(self.loc, self.scale)

    def sample(self, keys: Sequence[tuple[int, ...]]) -> Gradient:
        """loc + scale * standard normal noise."""
        return _noisy(self, keys, lambda row, rng: row.normal_(generator=rng))

    def log_prob(self, g: Gradient) -> Tensor:
        """Sum of the entries' log densities, (N,)."""
        check_kind("g", g, Gradient)
        return g.size * self.log_constant - self.loc.sq_distance(g) / (2 * self.scale**2)

    @property
    def log_constant(self) -> Scale:
        """What each entry's log density has besides the exponent."""
        return -_log(self.scale) - 0.5 * math.log(2 * math.pi)

    def entry(self, apart: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        """The log density of g at `apart` = g - loc without `log_constant`, and its slope."""
        scale = _of_rows(self.scale, rows, apart)
        standard = apart / scale
        return -0.5 * standard.square(), -standard / scale

    def within(self, loc: Tensor, bound: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        """The log chance that an entry around `loc` is smaller than `bound`, and its slope."""
        return _within(tails.gaussian, loc, bound, _of_rows(self.scale, rows, loc))


@dataclass(frozen=True)
class Laplace:
    """Independent Laplace entries around `loc`, with mean absolute deviation `scale`."""

    loc: Gradient
    scale: Scale

    def __post_init__(self) -> None:
        _check(self.loc, self.scale)

    def sample(self, keys: Sequence[tuple[int, ...]]) -> Gradient:
        """loc + scale * standard Laplace noise."""
        return _noisy(self, keys, _draw_laplace)

    def log_prob(self, g: Gradient) -> Tensor:
        """Sum of the entries' log densities, (N,)."""
        check_kind("g", g, Gradient)
        return g.size * self.log_constant - self.loc.abs_distance(g) / self.scale

    @property
    def log_constant(self) -> Scale:
        """What each entry's log density has besides the exponent."""
        return -_log(self.scale) - math.log(2)

    def entry(self, apart: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        """The log density of g at `apart` = g - loc without `log_constant`, and its slope."""
        scale = _of_rows(self.scale, rows, apart)
        return -apart.abs() / scale, -apart.sign() / scale

    def within(self, loc: Tensor, bound: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        """The log chance that an entry around `loc` is smaller than `bound`, and its slope."""
        return _within(tails.laplace, loc, bound, _of_rows(self.scale, rows, loc))


@dataclass(frozen=True)
class MaskedAtRandom:
    """Each entry comes from `base` with probability 1 - rate, else from `base` around zero.

    The mixture that remains of a random mask when the mask is not known.
    """

    base: Normal | Laplace
    rate: float

    def __post_init__(self) -> None:
        check_number("rate", self.rate, "(0, 1)")

    def sample(self, keys: Sequence[tuple[int, ...]]) -> Gradient:
        """Draw a fresh mask for each attack, then `base`."""
        loc = self.base.loc
        chances = _drawn(HIDDEN_MASK, loc, keys, lambda row, rng: row.uniform_(generator=rng))
        masked = loc.map(lambda v, chance: v * (chance >= self.rate).to(v), chances)
        return replace(self.base, loc=masked).sample(keys)

    def log_prob(self, g: Gradient) -> Tensor:
        """Sum of the entries' log densities, (N,)."""
        log_kept, log_hidden = math.log(1 - self.rate), math.log(self.rate)

        def mixture(apart: Tensor, g: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
            hidden, _ = self.base.entry(g.expand_as(apart), rows)
            kept, slope = self.base.entry(apart, rows)
            kept, hidden = kept + log_kept, hidden + log_hidden
            total = torch.logaddexp(kept, hidden).reshape(len(kept), -1).sum(1)
            return total, (kept - hidden).sigmoid() * slope

        return self.base.loc.entrywise(mixture, g) + g.size * self.base.log_constant


@dataclass(frozen=True)
class Rescaled:
    """g times `weights` follows `base`: name -> positive number for each parameter."""

    base: Distribution
    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        for weight in self.weights.values():
            check_number("weights", weight, POSITIVE)

    def sample(self, keys: Sequence[tuple[int, ...]]) -> Gradient:
        """Draw from `base` and divide by the weights."""
        return self.base.sample(keys).scaled({k: 1 / w for k, w in self.weights.items()})

    def log_prob(self, g: Gradient) -> Tensor:
        """Change of variables: the density of g is that of W g times |det W|, (N,)."""
        log_det = sum(v[0].numel() * math.log(self.weights[k]) for k, v in g.items())
        return self.base.log_prob(g.scaled(self.weights)) + log_det


@dataclass(frozen=True)
class Rest:
    """The parameters called `names` follow `base`; of others nothing is sent, or believed."""

    base: Distribution
    names: tuple[str, ...]

    def sample(self, keys: Sequence[tuple[int, ...]]) -> Gradient:
        """Draw the part alone."""
        return self.base.sample(keys)

    def log_prob(self, g: Gradient) -> Tensor:
        """That of the part, (N,)."""
        return self.base.log_prob(g.only(*(k for k in self.names if k in g)))


@dataclass(frozen=True)
class PointMass:
    """The gradient itself: no randomness, hence no density."""

    loc: Gradient

    def __post_init__(self) -> None:
        check_kind("loc", self.loc, Gradient)

    def sample(self, keys: Sequence[tuple[int, ...]]) -> Gradient:
        """Return loc."""
        return self.loc

    def log_prob(self, g: Gradient) -> Tensor:
        """Raise NotImplementedError: a point mass has no density."""
        raise NotImplementedError(
            "a deterministic release is a point mass and has no density; believe in a little "
            "noise instead (GaussianNoise(scale=0.01)) or in the direction (Direction()), and "
            "leave out what was hidden (Ignore, Survivors)"
        )


@dataclass(frozen=True)
class Density:
    """What a belief holds where no client could draw: log p(g) + const of each attack, (N,)."""

    log_prob: Callable[[Gradient], Tensor]

    def __post_init__(self) -> None:
        check_call("log_prob", self.log_prob)

    def sample(self, keys: Sequence[tuple[int, ...]]) -> Gradient:
        """Raise NotImplementedError: nothing to draw from."""
        raise NotImplementedError("this is a belief; a client needs a defense that can sample")


def _check(loc: Gradient, scale: Scale) -> None:
    """Made at each step of a climb, so values of tensors are not read."""
    check_kind("loc", loc, Gradient, "see Gradient.map")
    if not isinstance(scale, Tensor):
        check_number("scale", scale, POSITIVE, "for no noise use PointMass(loc)")
    elif scale.shape not in ((), (loc.attacks,)):
        raise ValueError(f"scale is {tuple(scale.shape)} for {loc.attacks} attacks: give (N,)")


def _drawn(what: int, like: Gradient, keys: Sequence[tuple[int, ...]], draw: Draw) -> Gradient:
    """Numbers of the shapes of `like` on the CPU, those of attack n from (what, keys[n]) alone."""
    for each in (keys, *keys[:1]) if isinstance(keys, Sequence) else (keys,):
        check_kind("keys", each, Sequence, "a tuple for each attack, such as [(seed, 0)]")
    if len(keys) != like.attacks:
        raise ValueError(f"{like.attacks} gradients but {len(keys)} random keys; give one for each")
    drawn = {k: torch.empty(v.shape, dtype=torch.float32) for k, v in like.items()}

    def fill(n: int) -> None:
        rng = generator(what, *keys[n])
        for rows in drawn.values():
            draw(rows[n], rng)

    # PyTorch draws on one core however many there are; so attacks are drawn side by side.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(fill, range(len(keys))))
    return Gradient(drawn)


def _noisy(around: Normal | Laplace, keys: Sequence[tuple[int, ...]], draw: Draw) -> Gradient:
    check_scale("scale", around.scale, POSITIVE)

    def added(v: Tensor, noise: Tensor) -> Tensor:
        return noise.to(v).mul_(per_attack(around.scale, v)).add_(v)

    return around.loc.map(added, _drawn(NOISE, around.loc, keys, draw))


def _draw_laplace(row: Tensor, rng: torch.Generator) -> None:
    """Standard Laplace numbers, by the inverse of the distribution function."""
    tail = row.uniform_(-1, 1, generator=rng).abs().clamp_max_(1 - 2**-24)  # -1 may be drawn
    row.sign_().mul_(tail.neg_().log1p_().neg_())


def _of_rows(scale: Scale, rows: slice, like: Tensor) -> Scale:
    several = isinstance(scale, Tensor) and scale.ndim
    return per_attack(scale[rows], like) if several else scale


def _within(
    chance: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    loc: Tensor,
    bound: Tensor,
    scale: Scale,
) -> tuple[Tensor, Tensor]:
    """A function of `tails` for entries of a scale; infinity is as good as a huge bound."""
    limits = torch.finfo(loc.dtype)
    tau = (bound / scale).clamp(limits.tiny, limits.max**0.5 / 4)
    log_chance, slope = chance(loc.abs() / scale, tau)
    return log_chance, slope * loc.sign() / scale


def _log(scale: Scale) -> Scale:
    return scale.log() if isinstance(scale, Tensor) else math.log(scale)
