"""Parts of one's own are looked at once, before anything runs: on two attacks, and on one alone.

What couples attacks, changes shapes or forgets a slope gives wrong numbers without a word. Parts of
this package are known to be good where all that they are made of is. A look costs a few evaluations
at the first use of an object, none in the steps of a climb.
"""

import weakref
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import is_dataclass
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, TypeVar

import torch
from torch import Tensor

from gradleak.defenses import Distribution, Transform
from gradleak.gradients import Gradient
from gradleak.priors import Moment, Prior, check_prior
from gradleak.scales import per_attack

T = TypeVar("T")

BOTH, EACH = slice(0, 2), (slice(0, 1), slice(1, 2))
TOLERANCE = 0.02  # rounding is smaller, also that of half precision
_SEEN: set[tuple[Hashable, ...]] = set()


def due(part: object, *how: Hashable) -> bool:
    """Whether a part is of one's own and was not looked at in this way."""
    return not known(part) and (id(part), *how) not in _SEEN


def done(part: object, *how: Hashable) -> None:
    """Remember a part, as long as it lives; what cannot be followed is looked at each time."""
    with suppress(TypeError):
        weakref.finalize(part, _SEEN.discard, (id(part), *how)).atexit = False
        _SEEN.add((id(part), *how))


def known(part: object) -> bool:
    """Whether a part and all that it is made of are this package's, or plain values."""
    if isinstance(part, tuple):
        return all(map(known, part))
    if part is None or isinstance(part, bool | int | float | str | Tensor):
        return True
    named = isinstance(part, type | FunctionType | MethodType | BuiltinFunctionType)
    if not str((part if named else type(part)).__module__).startswith("gradleak."):
        return False
    return not is_dataclass(part) or named or all(map(known, vars(part).values()))


def pair(v: Tensor) -> Tensor:
    """Two rows of v (N, ...): the first two, or the only one and itself turned round."""
    return v[:2] if len(v) > 1 else torch.cat([v, v.flip(-1) if v.ndim > 1 else v])


def unlike(v: Tensor) -> Tensor:
    """Two rows v (2, ...) of another size each, so that what is taken over both is found out."""
    return per_attack(torch.tensor([1.0, 0.3]), v) * v


def at_defense(
    part: object, make: Callable[[slice], Any], gradient: Gradient, g: Gradient | None = None
) -> None:
    """Look at a defense, or at a belief about released gradients g. Raises ValueError.

    make(rows): what it returns for some rows of `gradient`, which holds those of two attacks.
    """
    who = f"the defense {part!r:.100}"

    def run(rows: slice) -> dict[str, Tensor]:
        held = _tried(who, lambda: make(rows), rows)
        if isinstance(held, Gradient) or not isinstance(held, Distribution):
            raise ValueError(
                f"{who} must return a distribution, with sample(keys) and log_prob(g), got "
                f"{type(held).__name__}; return gl.PointMass(gradient) to release it as it is, or "
                "gl.Normal(gradient, scale)"
            )
        found, seen = {}, gradient.rows(rows) if g is None else g.rows(rows)
        with suppress(NotImplementedError):
            if g is None:
                keys = [(0, k) for k in range(2)][rows]
                seen = _tried(who, lambda: held.sample(keys), rows)
                found["sample"] = _sampled(who, seen, gradient.rows(rows))
        with suppress(NotImplementedError):
            log_p = _tried(who, lambda: held.log_prob(seen), rows)
            found |= _valued(who, log_p, [v for v in gradient.values() if v.requires_grad], rows)
        return found

    _compare(who, run, [*gradient.values(), *(() if g is None else g.values())])


def at_prior(prior: Prior, of: Callable[[slice], tuple[Prior, Moment]], x: Tensor) -> None:
    """Look at a prior at two points x (2, *shape). Raises ValueError.

    of(rows): what `given` makes of it for some of the rows, and the moment to ask it at.
    """
    who = f"the prior {prior!r:.100}"

    def run(rows: slice) -> dict[str, Tensor]:
        held, moment = _tried(who, lambda: of(rows), rows)
        check_prior(f"{who}: what given(view) returns", held)
        held = _tried(who, lambda: held.at(moment), rows)
        check_prior(f"{who}: what at(moment) returns", held)
        leaf = x.clone().requires_grad_()
        log_p = _tried(who, lambda: held.log_prob(leaf[rows]), rows)
        found = _valued(who, log_p, [leaf], rows)
        moved = _tried(who, lambda: held.project(x[rows]), rows)
        return found | {"project": _shaped(f"{who}: project", moved, x[rows])}

    _compare(who, run, [x])


def at_transform(transform: Transform, x: Tensor, keys: Sequence[tuple[int, ...]]) -> None:
    """Look at a client's transform, on two images x. Raises ValueError."""
    who = f"the transform {transform!r:.100}"

    def run(rows: slice) -> dict[str, Tensor]:
        seen = _tried(who, lambda: transform(x[rows], keys[rows]), rows)
        image = _tried(who, lambda: transform.image(seen), rows)
        found = {"T(x)": seen, "image": image}
        return {k: _numbered(f"{who}: {k}", v, len(x[rows])) for k, v in found.items()}

    _compare(who, run, [x])


def _tried(who: str, run: Callable[[], T], rows: slice) -> T:
    """What it gives; what was raised on purpose is passed on."""
    try:
        with torch.enable_grad():
            return run()
    except (ValueError, NotImplementedError):
        raise
    except Exception as error:
        raise ValueError(
            f"{who} fails for {rows.stop - rows.start} attacks, the leading axis of all that it "
            f"is given, where any number must do: {type(error).__name__}: {error}"
        ) from error


def _compare(who: str, run: Callable[[slice], dict[str, Tensor]], given: list[Tensor]) -> None:
    before = [v.detach().clone() for v in given]
    both = run(BOTH)
    if not all(map(torch.equal, given, before)):
        raise ValueError(f"{who} changes what it is given in place; work on a copy, v.clone()")
    again, alone = run(BOTH), [run(rows) for rows in EACH]
    for what, value in both.items():
        if not close(value, again[what]):
            raise ValueError(
                f"{who} answers differently when it is asked twice ({what}): results could not be "
                "repeated. Draw where keys are given, by gradleak.randomness.generator, as the "
                "noise of gl.Normal is, and keep no state"
            )
        each = [one.get(what, value[:0]) for one in alone]
        if not close(value, torch.cat(each)):
            raise ValueError(
                f"{who} couples attacks: {what} of one alone differs from what it is beside a "
                "second one. Leave the leading axis alone: v.flatten(1).sum(1), never v.sum()"
            )


def _sampled(who: str, drawn: object, like: Gradient) -> Tensor:
    if not isinstance(drawn, Gradient) or drawn.keys() != like.keys():
        told = ", ".join(drawn) if isinstance(drawn, Gradient) else type(drawn).__name__
        raise ValueError(
            f"{who} must release a Gradient of the parameters {', '.join(like)}, got {told}; "
            "set what is hidden to zero instead of leaving it out"
        )
    each = [_shaped(f"{who}: {name}", v, like[name]) for name, v in drawn.items()]
    return torch.cat([v.reshape(len(v), -1) for v in each], 1)


def _valued(who: str, log_p: object, leaves: list[Tensor], rows: slice) -> dict[str, Tensor]:
    """The values of log_prob, and its slope in the leaves, if it has one."""
    n = rows.stop - rows.start
    if not isinstance(log_p, Tensor) or log_p.shape != (n,) or not log_p.is_floating_point():
        told = tuple(log_p.shape) if isinstance(log_p, Tensor) else type(log_p).__name__
        raise ValueError(
            f"{who}: log_prob must return one number for each of N attacks, ({n},), got {told}; "
            "sum over all axes but the first: v.flatten(1).sum(1)"
        )
    if log_p.isnan().any():
        raise ValueError(f"{who}: log_prob is not a number (nan) at ordinary values: {log_p}")
    found, slopes = {"log_prob": log_p.detach()}, []
    if log_p.requires_grad:
        slopes = torch.autograd.grad(log_p.sum(), leaves, allow_unused=True, retain_graph=True)
        slopes = [s[rows].reshape(n, -1) for s in slopes if s is not None]
    flat = not slopes or not any(s.any() for s in slopes)
    if leaves and flat and n > 1 and log_p.isfinite().all() and log_p[0] != log_p[1]:
        raise ValueError(
            f"{who}: log_prob changes but has no slope, so no attack can climb it; keep to "
            "operations of PyTorch without detach, no_grad, item, NumPy, round or comparisons"
        )
    if slopes:
        found["slope"] = _finite(f"{who}: the slope of log_prob", torch.cat(slopes, 1))
    return found


def _shaped(what: str, value: object, like: Tensor) -> Tensor:
    value = _numbered(what, value, len(like))
    if value.shape != like.shape or value.dtype != like.dtype:
        raise ValueError(
            f"{what} must stay {tuple(like.shape)} of {like.dtype}, got {tuple(value.shape)} of "
            f"{value.dtype}"
        )
    return value


def _numbered(what: str, value: object, n: int) -> Tensor:
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.shape[:1] != (n,):
        told = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{what} must be numbers with a row for each of {n} attacks, got {told}")
    return _finite(what, value)


def _finite(what: str, value: Tensor) -> Tensor:
    if not value.isfinite().all():
        raise ValueError(f"{what} is not finite at ordinary values: it holds nan or inf")
    return value.detach()


def close(a: Tensor, b: Tensor) -> bool:
    """Whether two values are equal, but for rounding."""
    size = b[b.isfinite()].abs().max() if b.isfinite().any() else 0.0
    return a.shape == b.shape and torch.allclose(a, b, TOLERANCE, TOLERANCE * float(size))
