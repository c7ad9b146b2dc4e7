"""Beliefs about the defense that no client holds: what the older attacks assume.

A belief is p(g | x, y) as the attacker holds it: the likelihood, elsewhere called data fidelity.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gradleak.defenses.distributions import Density, Distribution, MaskedAtRandom, Rescaled, Rest
from gradleak.defenses.noise import Defense, GaussianNoise, LaplaceNoise
from gradleak.gradients import Gradient, layer_of
from gradleak.scales import (
    POSITIVE,
    Scale,
    check_call,
    check_kind,
    check_number,
    check_numbers,
    check_scale,
    per_attack,
    refuse,
)


@dataclass(frozen=True)
class Direction:
    """Only the direction of g tells anything: log p(g) = concentration * cosine + const.

    On the sphere this is the von Mises-Fisher density; its constant is left out. `concentration`
    is a positive number or a tensor (N,). Cosine matching: Geiping et al. 2020, eq. 4.
    """

    concentration: Scale = 1.0

    def __post_init__(self) -> None:
        check_scale("concentration", self.concentration, POSITIVE)

    def __call__(self, gradient: Gradient) -> Distribution:
        """The belief about g around this gradient."""
        return Density(lambda g: self._log_prob(gradient, g))

    def _log_prob(self, gradient: Gradient, g: Gradient) -> Tensor:
        inner, norm = gradient.moments(g)
        other = g.sq_norm().repeat_interleave(len(norm) // g.attacks)
        inner = per_attack(self.concentration, inner) * inner
        # Squares of small gradients have products that underflow; powers of two round nothing.
        one, two = _half_exponent(norm), _half_exponent(other)
        norms = norm.ldexp(-2 * one) * other.ldexp(-2 * two)
        return inner.ldexp(-one - two) / norms.clamp_min(torch.finfo(norm.dtype).tiny).sqrt()


def _half_exponent(square: Tensor) -> Tensor:
    """k so that square / 4^k is near one."""
    return (square.detach().frexp().exponent // 2).clamp(-60, 60)


@dataclass(frozen=True)
class LayerDirections(Direction):
    """Only each layer's own direction tells anything: the cosines of all parameters, added.

    log p(g) = concentration * sum over parameters of the cosine + const, a von Mises-Fisher
    density for each parameter tensor. A tensor whose released gradient is zero tells nothing.
    """

    def _log_prob(self, gradient: Gradient, g: Gradient) -> Tensor:
        one = super()._log_prob
        return torch.stack([one(gradient.only(k), g.only(k)) for k in g]).sum(0)


@dataclass(frozen=True)
class Uninformative:
    """g tells nothing about x: log p(g) = 0. Leaves the prior alone, the data-free control."""

    def __call__(self, gradient: Gradient) -> Distribution:
        """The belief, whatever the gradient."""
        # Zero, but connected to x, so that its derivative is zero and not missing.
        return Density(lambda g: 0.0 * gradient.sq_norm())


@dataclass(frozen=True)
class UnknownMask:
    """A random mask that the attacker does not know: each entry was kept or not, then noised.

    p(g) is a product of two-component mixtures, rate * p(g_i around 0) + (1 - rate) * p(g_i around
    the gradient's entry). `then` is GaussianNoise or LaplaceNoise; rate lies in (0, 1). Raises
    ValueError otherwise.
    """

    rate: float
    then: GaussianNoise | LaplaceNoise

    def __post_init__(self) -> None:
        check_number("rate", self.rate, "(0, 1)", "with no mask believe in the noise alone")
        check_kind("then", self.then, (GaussianNoise, LaplaceNoise))

    def __call__(self, gradient: Gradient) -> MaskedAtRandom:
        """The mixture around this gradient."""
        return MaskedAtRandom(self.then(gradient), self.rate)


@dataclass(frozen=True)
class Ignore:
    """Believe `then` about the rest of the gradient, and nothing about the named parameters.

    layer: the name of a parameter, of a layer (its weight and bias), or a tuple of such names.
    Where a part of g tells nothing, its density does not depend on x and drops out; it need not be
    in g. As a client's defense: the rest alone is sent. Raises ValueError for names that do not
    exist, and where nothing would be left.
    """

    layer: str | tuple[str, ...]
    then: Defense

    def __post_init__(self) -> None:
        _names(self.layer)
        check_call("then", self.then)

    def __call__(self, gradient: Gradient) -> Distribution:
        """The distribution of the rest of g."""
        left = self.rest(gradient)
        return Rest(self.then(left), tuple(left))

    def rest(self, gradient: Gradient) -> Gradient:
        """What of a gradient is sent and believed in."""
        names = _names(self.layer)
        left = gradient.without(names)
        if not left:
            raise ValueError(
                f"ignoring {', '.join(names)} leaves nothing of the gradient to believe in; for "
                "the prior alone use Uninformative()"
            )
        return left


@dataclass(frozen=True)
class Survivors:
    """Believe `then` about the entries that survived; those that are zero in g were hidden.

    layer: where entries may have been hidden: the name of a parameter, of a layer, or a tuple of
    such names. The mask is read off g, so it is never wrong about what was sent; an entry that was
    zero by itself counts as hidden. Raises ValueError for names that do not exist.
    """

    layer: str | tuple[str, ...]
    then: Defense

    def __post_init__(self) -> None:
        _names(self.layer)
        check_call("then", self.then)

    def __call__(self, gradient: Gradient) -> Distribution:
        """The distribution of what survived."""
        names = _names(self.layer)
        return Density(lambda g: self.then(gradient.masked(g.nonzero(names))).log_prob(g))


@dataclass(frozen=True)
class LayerWeights:
    """Believe `then` about the gradient whose layers were multiplied by `weights`.

    So layer l's noise is 1/weights[l] times that of `then`. Weights are positive, one for each
    layer (weight and bias share it), first to last; ValueError otherwise. A published weight w of
    a squared error is sqrt(w) here.
    """

    weights: tuple[float, ...]
    then: Defense

    def __post_init__(self) -> None:
        check_numbers("weights", self.weights, POSITIVE)
        check_call("then", self.then)

    def __call__(self, gradient: Gradient) -> Distribution:
        """The distribution of g under these weights."""
        if len(self.weights) != len(gradient.layers):
            raise ValueError(
                f"{len(self.weights)} layer weights for {len(gradient.layers)} layers: "
                f"{', '.join(gradient.layers)}"
            )
        by_layer = dict(zip(gradient.layers, self.weights, strict=True))
        weights = {name: by_layer[layer_of(name)] for name in gradient}
        return Rescaled(self.then(gradient.scaled(weights)), weights)


def _names(layer: str | tuple[str, ...]) -> tuple[str, ...]:
    names = (layer,) if isinstance(layer, str) else layer
    if not isinstance(names, tuple) or not names or not all(isinstance(n, str) for n in names):
        refuse("layer", "the name of a layer or parameter, or a tuple of such names", layer)
    return names
