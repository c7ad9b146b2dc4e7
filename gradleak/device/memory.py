"""How much memory a computation takes and moves, and how much of it there is."""

import ctypes
import mmap
import re
import weakref
from functools import cache
from pathlib import Path, PurePosixPath

import psutil
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from gradleak.device.dispatch import Dispatched

# Of a control group: its limit, what is used of it, and what of that are files no longer in use.
V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
UNLIMITED = 2**60  # version 1 says "no limit" by a number


def free(device: torch.device) -> int:
    """Bytes that can still be allocated on the device, within the limits of a container."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    return min([psutil.virtual_memory().available, *_left()])


def _left(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """Bytes that the control groups of this process, and those that they lie in, have left.

    Groups limit a container or a batch job. Root and own: where Linux shows them, in version 1
    or 2. A group without a limit is left out; so is what cannot be read, as elsewhere.
    """
    left = []
    for line in _text(own).splitlines():
        kinds, _, path = line.partition(":")[2].partition(":")
        if not kinds or "memory" in kinds.split(","):
            names, top = (V1, root / "memory") if kinds else (V2, root)
            # Inside a container the path may be the host's, and its groups are those at the top.
            inside = PurePosixPath(path.strip("/"))
            for place in dict.fromkeys((top, *(top / part for part in (inside, *inside.parents)))):
                left += _group(place, *names)
    return left


def _group(place: Path, most: str, used: str, cached: str) -> list[int]:
    limit, taken = (_text(place / name).strip() for name in (most, used))
    if not (limit.isdigit() and taken.isdigit()) or int(limit) >= UNLIMITED:
        return []
    # Files that were read count as used until others want the room.
    spare = re.search(rf"^{cached} (\d+)$", _text(place / "memory.stat"), re.MULTILINE)
    return [max(0, int(limit) - int(taken) + (int(spare[1]) if spare else 0))]


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""


class LiveMemory(Dispatched):
    """Counts the bytes of tensors that are alive, and their peak, on any device."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = {tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs))}
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in given | self._seen:
                self._seen.add(key)
                self.live += size
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._free, key, size)
        return result

    def _free(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size


class MovedMemory(Dispatched):
    """Counts the bytes that operations read and write, on any device; views move none."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        schema = function._schema
        alias = any(value.alias_info is not None for value in schema.returns)
        if schema.is_mutable or not alias:
            # An expanded tensor is as small as what it was expanded from.
            self.moved += sum(min(t.numel() * t.element_size(), t.untyped_storage().nbytes())
                              for t in _tensors((args, kwargs, result)))  # fmt: skip
        return result


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


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
