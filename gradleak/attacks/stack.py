"""Many settings in one computation: numbers that differ become tensors, one entry an attack."""

import itertools
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from gradleak.identity import digest

T = TypeVar("T")

Row = tuple[int, int, int]
"""What an attack is: a setting, one of that setting's clients, and a restart."""


def merge(settings: Sequence[T], rows: Sequence[Row], clients: Sequence[int], like: Tensor) -> T:
    """One object for n attacks: attack i takes the setting that rows[i] says.

    clients: how many each setting has. The settings are (nested) frozen dataclasses that differ in
    floats only. A number that is the same everywhere stays a number; one that differs becomes a
    tensor (n,); a tensor holds one value, or one row, for each client. Tensors get the device and
    precision of `like`. Raises ValueError where settings differ in anything else, such as in
    classes of one's own, which need not know of numbers for each attack.
    """
    first = settings[0]
    if any(isinstance(s, Tensor) for s in settings) or (
        any(isinstance(s, float) for s in settings) and any(s != first for s in settings)
    ):
        return _gather(settings, rows, clients, like)
    alike = all(type(s) is type(first) for s in settings)
    if alike and is_dataclass(first) and type(first).__module__.startswith("gradleak."):
        names = [f.name for f in fields(first)]
        parts = {k: merge([getattr(s, k) for s in settings], rows, clients, like) for k in names}
        changed = {k: v for k, v in parts.items() if v is not getattr(first, k)}
        return replace(first, **changed) if changed else first
    if alike and isinstance(first, tuple) and all(len(s) == len(first) for s in settings):
        parts = tuple(merge(list(p), rows, clients, like) for p in zip(*settings, strict=True))
        return first if all(a is b for a, b in zip(parts, first, strict=True)) else parts
    # Dataclasses of one's own may compare equal and yet differ.
    told = digest if is_dataclass(first) else lambda setting: setting
    if not alike or any(s is not first and told(s) != told(first) for s in settings):
        distinct = " and ".join(dict.fromkeys(map(repr, settings)))
        raise ValueError(
            f"adversaries attacked together may differ in floats only, not in {distinct}"
        )
    return first


def mergeable(settings: Sequence[Any]) -> bool:
    """Whether `merge` takes these settings."""
    try:
        merge(settings, [], [1] * len(settings), like=torch.zeros(0))
    except ValueError:
        return False
    return True


def _gather(
    settings: Sequence[float | Tensor], rows: Sequence[Row], clients: Sequence[int], like: Tensor
) -> Tensor:
    values = []
    for value, count in zip(settings, clients, strict=True):
        value = torch.as_tensor(value).to(like)
        if value.ndim and len(value) != count:
            raise ValueError(f"{len(value)} values for {count} clients; give one for each")
        values.append(value if value.ndim else value.expand(count))
    first = [0, *itertools.accumulate(clients)]
    return torch.cat(values)[[first[setting] + client for setting, client, _ in rows]]
