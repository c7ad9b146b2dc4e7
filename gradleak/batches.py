"""Many settings in one computation: numbers that differ become tensors, one entry an attack."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

Scale = float | Tensor
"""A number, or one for each attack: a tensor (N,)."""


def per_attack(scale: Scale, like: Tensor) -> Scale:
    """Shape a number for each attack, (N,), so that it multiplies a tensor (N, ...)."""
    if isinstance(scale, Tensor) and scale.ndim:
        return scale.to(like).reshape(-1, *[1] * (like.ndim - 1))
    return scale


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


@cache
def keep_blocks() -> None:
    """Ask glibc to keep large freed blocks for the next step; does nothing elsewhere.

    By default it gives them back to the system at once, and fetching them again is up to half of
    an attack's time on a CPU. The first gibibyte is asked for in huge pages, which saves some per
    cent more. Holds for the whole process, so libraries should not call it.
    """
    try:
        libc = ctypes.CDLL(None)
        mallopt, madvise, malloc, free = libc.mallopt, libc.madvise, libc.malloc, libc.free
    except (AttributeError, OSError, TypeError):
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # names of malloc.h
    for what, value in ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 2**28)):
        mallopt(what, value)
    page, size, huge = mmap.PAGESIZE, 2**30, 14  # MADV_HUGEPAGE
    malloc.restype = ctypes.c_void_p
    block = malloc(ctypes.c_size_t(size))  # reserved, not filled: it costs no memory yet
    if block:
        start = -(-block // page) * page
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(size - page), huge)
        free(ctypes.c_void_p(block))
