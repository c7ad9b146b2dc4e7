"""Many settings in one computation: numbers that differ become tensors, one entry an attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Rows:
    """What each of n attacks is: a setting, one of that setting's clients, and a restart.

    client, setting, restart: (n,) indices; clients: how many each setting has.
    """

    client: Tensor
    setting: Tensor
    restart: Tensor
    clients: tuple[int, ...]

    def part(self, index: Tensor) -> Rows:
        """Some of the rows."""
        return Rows(self.client[index], self.setting[index], self.restart[index], self.clients)


def merge(settings: Sequence[T], rows: Rows, like: Tensor) -> T:
    """One object for n attacks: attack i takes settings[rows.setting[i]].

    The settings are (nested) frozen dataclasses that differ in floats only. A number that is the
    same everywhere stays a number; one that differs becomes a tensor (n,); a tensor holds one
    value, or one row, for each client. Tensors get the device and precision of `like`. Raises
    ValueError where settings differ in anything else.
    """
    first = settings[0]
    if any(isinstance(s, Tensor) for s in settings) or (
        any(isinstance(s, float) for s in settings) and any(s != first for s in settings)
    ):
        return _gather(settings, rows, like)
    if any(type(s) is not type(first) for s in settings):
        raise ValueError(_difference(settings))
    if is_dataclass(first):
        names = [f.name for f in fields(first)]
        parts = {k: merge([getattr(s, k) for s in settings], rows, like) for k in names}
        changed = {k: v for k, v in parts.items() if v is not getattr(first, k)}
        return replace(first, **changed) if changed else first
    if isinstance(first, tuple) and all(len(s) == len(first) for s in settings):
        parts = tuple(merge(list(p), rows, like) for p in zip(*settings, strict=True))
        return first if all(a is b for a, b in zip(parts, first, strict=True)) else parts
    if any(s is not first and s != first for s in settings):
        raise ValueError(_difference(settings))
    return first


def mergeable(settings: Sequence[Any]) -> bool:
    """Whether `merge` takes these settings."""
    none = torch.zeros(0, dtype=torch.long)
    try:
        merge(settings, Rows(none, none, none, (1,) * len(settings)), like=torch.zeros(0))
    except ValueError:
        return False
    return True


def _gather(settings: Sequence[float | Tensor], rows: Rows, like: Tensor) -> Tensor:
    values = []
    for value, clients in zip(settings, rows.clients, strict=True):
        value = torch.as_tensor(value).to(like)
        if value.ndim and len(value) != clients:
            raise ValueError(f"{len(value)} values for {clients} clients; give one for each")
        values.append(value if value.ndim else value.expand(clients))
    ends = torch.tensor(rows.clients).cumsum(0)
    first = ends - torch.tensor(rows.clients)
    return torch.cat(values)[first[rows.setting] + rows.client]


def _difference(settings: Sequence[Any]) -> str:
    distinct = " and ".join(dict.fromkeys(map(repr, settings)))
    return f"adversaries attacked together may differ in floats only, not in {distinct}"
