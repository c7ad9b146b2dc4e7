"""Numbers that settings are: checked before anything runs, and one for each attack.

Each check names the setting, what it may be, what it got, and a cure where one is not plain.
"""

import sys
from collections.abc import Sequence
from functools import cache
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

Scale = float | Tensor
"""A number, or one for each attack: a tensor (N,)."""

POSITIVE = "[1e-18, 1e18]"  # positive numbers whose squares float32 holds
WEIGHT = "[0, 1e18]"


def per_attack(scale: Scale, like: Tensor) -> Scale:
    """Shape a number for each attack, (N,), so that it multiplies a tensor (N, ...)."""
    if isinstance(scale, Tensor) and scale.ndim:
        if len(scale) != len(like):
            raise ValueError(
                f"a setting holds {len(scale)} numbers for {len(like)} attacks; give one for each, "
                "or one number for all"
            )
        return scale.to(like).reshape(-1, *[1] * (like.ndim - 1))
    return scale


def check_number(name: str, value: float, interval: str, cure: str = "") -> None:
    """Raise ValueError unless `value` is a number in an interval, such as "(0, 1]"."""
    if not _is_number(value) or not _inside(value, interval):
        refuse(name, f"a number in {interval}", value, cure)


def check_scale(name: str, value: Scale, interval: str, cure: str = "") -> None:
    """The same for a number, or a tensor (N,) that holds one for each attack."""
    if not isinstance(value, Tensor):
        return check_number(name, value, interval, cure)
    real = value.dtype.is_floating_point or value.dtype in (torch.int32, torch.int64)
    fit = real and is_plain(value) and value.ndim < 2
    if not fit or not all(_inside(v, interval) for v in value.view(-1).tolist()):
        refuse(name, f"a number in {interval}, or a tensor (N,) of such", value, cure)


def check_numbers(name: str, values: Sequence[float], interval: str, cure: str = "") -> None:
    """Raise ValueError unless `values` is a tuple or list of numbers in an interval."""
    numbers = isinstance(values, tuple | list) and all(map(_is_number, values))
    if not numbers or not all(_inside(v, interval) for v in values):
        refuse(name, f"a tuple of numbers in {interval}", values, cure)


def check_whole(name: str, value: int, least: int = 0, cure: str = "") -> None:
    """Raise ValueError unless `value` is a whole number, at least `least`."""
    if type(value) is int and value >= least:  # the usual case, in each step of a climb
        return
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        refuse(name, f"a whole number, at least {least}", value, cure)


def check_flag(name: str, value: bool) -> None:
    """Raise ValueError unless `value` is True or False."""
    if not isinstance(value, bool):
        refuse(name, "True or False", value)


def check_kind(name: str, value: object, kind: type | tuple[type, ...], cure: str = "") -> None:
    """Raise ValueError unless `value` is an instance of a class, or of one of some."""
    if type(value) is not kind and not isinstance(value, kind):  # the first is quicker
        kinds = kind if isinstance(kind, tuple) else (kind,)
        refuse(name, " or ".join(f"a {k.__name__}" for k in kinds), value, cure)


def check_call(name: str, value: object, cure: str = "") -> None:
    """Raise ValueError unless `value` can be called; a class is none of its instances."""
    if not callable(value) or isinstance(value, type):
        cure = cure or ("give an instance, not its class" if isinstance(value, type) else "")
        refuse(name, "a function, or an object that can be called", value, cure)


def check_shapes(**tensors: Tensor) -> None:
    """Raise ValueError unless all are tensors of one shape, of at least one row and one number."""
    for name, value in tensors.items():
        check_kind(name, value, Tensor, "use torch.as_tensor(...)")
        if not value.is_floating_point() or not is_plain(value):
            refuse(name, "dense floating-point numbers", value.dtype, "use .float(), .to_dense()")
    (first, like), *rest = tensors.items()
    for name, value in rest:
        if value.shape != like.shape:
            raise ValueError(
                f"{first} is {tuple(like.shape)} but {name} is {tuple(value.shape)}: give both one "
                "shape, a row for each attack"
            )
    if not like.ndim or not like.numel():
        raise ValueError(f"{first} holds nothing, its shape is {tuple(like.shape)}; give rows")


def refuse(name: str, wanted: str, got: object, cure: str = "") -> None:
    """Raise ValueError in the words that all checks share."""
    raise ValueError(f"{name} must be {wanted}, got {got!r:.200}{cure and '; '}{cure}")


def is_plain(value: Tensor) -> bool:
    """Whether a tensor is dense and holds its numbers, not quantised and of 16 bits or more."""
    strange = value.is_meta or value.is_nested or value.is_quantized
    strange = strange or (value.is_floating_point() and value.element_size() == 1)
    return not strange and value.layout is torch.strided


def _is_number(value: object) -> bool:
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= sys.float_info.max
    return isinstance(value, float | np.integer | np.floating)


def _inside(value: float, interval: str) -> bool:
    low, high = _ends(interval)
    above = value >= low if interval[0] == "[" else value > low
    return above and (value <= high if interval[-1] == "]" else value < high)


@cache
def _ends(interval: str) -> tuple[float, ...]:
    return tuple(map(float, interval[1:-1].split(",")))
