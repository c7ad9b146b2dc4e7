"""Many rows of work in chunks that fit into memory, or into a cache."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from gradleak.device.memory import LiveMemory, free

T = TypeVar("T")

# Numbers to work on at a time where one operation follows the other on the same ones: as many as
# a processor's cache holds, or as keep a graphics card busy for longer than it takes to ask it.
CACHED = {"cpu": 2**21, "cuda": 2**24}

# What it is called where the error has no class of its own: by the allocator of processors, the
# system, oneDNN, C++, CUDA, and the libraries for products and convolutions.
NO_MEMORY = (
    "defaultcpuallocator", "not enough memory", "cannot allocate memory", "can't allocate memory",
    "could not create a primitive", "could not create a memory", "could not execute a primitive",
    "std::bad_alloc", "bad_alloc", "out of memory", "out_of_memory", "alloc_failed",
    "insufficient memory", "failed to allocate",
)  # fmt: skip


def in_chunks(run: Callable[[Tensor], T], rows: Tensor, chunk: int) -> list[T]:
    """Run the rows in chunks; where memory runs out, halve the chunk and go on."""
    parts: list[T] = []
    done = 0
    while done < len(rows):
        try:
            parts.append(run(rows[done : done + chunk]))
        except (RuntimeError, MemoryError) as error:  # OutOfMemoryError is one
            if chunk == 1 or not out_of_memory(error):
                raise
        else:
            done += chunk
            continue
        # Outside the handler, whose traceback would keep the chunk's tensors alive.
        chunk = max(1, min(chunk, len(rows) - done) // 2)
        torch.cuda.empty_cache()
    return parts


def blocks(rows: int, each: int, device: torch.device) -> Iterator[slice]:
    """The rows, of `each` numbers, in blocks that are worked on at a time."""
    some = max(1, CACHED.get(device.type, CACHED["cuda"]) // each)
    return (slice(k, min(k + some, rows)) for k in range(0, rows, some))


def pieces(rows: int, each: int, of: int, device: torch.device) -> Iterator[tuple[slice, slice]]:
    """The same where a row is made of `each` parts of `of` numbers: (rows, parts) at a time.

    Several whole rows, or of one row that is too large as many parts as are worked on at a time.
    """
    for some in blocks(rows, each * of, device):
        for part in blocks(each, of, device) if some.stop - some.start == 1 else [slice(0, each)]:
            yield some, part


def as_many_as_fit(run: Callable[[Tensor], object], few: Tensor, device: torch.device) -> int:
    """How many rows take half of the free memory, by what a few of them take: it is linear."""
    peaks = []
    try:
        for rows in (few[:1], few):
            with LiveMemory() as memory:
                run(rows)
            peaks.append(memory.peak)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return 1
    each = (peaks[1] - peaks[0]) / max(1, len(few) - 1)
    return max(1, int(0.5 * free(device) / max(1.0, each)))


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out."""
    said = str(error).lower()
    memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return memory or any(word in said for word in NO_MEMORY)
