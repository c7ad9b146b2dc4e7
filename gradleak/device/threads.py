"""Chunks of work side by side: a thread for each, in which PyTorch takes one thread."""

import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from gradleak.device.chunks import in_chunks, out_of_memory

T = TypeVar("T")

_OWN = threading.local()


def side_by_side(run: Callable[[Tensor], T], rows: Tensor, chunk: int, workers: int) -> list[T]:
    """The same as `in_chunks`, by several workers that together hold `chunk` rows at a time.

    Parts that find no memory beside the others are run after them. An error of one, or of the
    caller's thread, stops all: `run` calls `proceed` now and then.
    """
    size = max(1, min(chunk // workers, math.ceil(len(rows) / workers)))
    parts, stop = rows.split(size), threading.Event()
    with threads(1), ThreadPoolExecutor(workers, "attack", _begin, (stop,)) as pool:
        futures = [pool.submit(run, part) for part in parts]
        try:
            left = set(futures)
            while left:  # awake now and then, for an interrupt
                done, left = wait(left, timeout=0.2, return_when=FIRST_COMPLETED)
                for error in filter(None, (future.exception() for future in done)):
                    if not out_of_memory(error):
                        raise error
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    found: list[T] = []
    for part, future in zip(parts, futures, strict=True):
        short = future.exception() is not None
        found += in_chunks(run, part, math.ceil(size / 2)) if short else [future.result()]
    return found


def cores() -> int:
    """How many cores this process may use."""
    limited = hasattr(os, "sched_getaffinity")  # not on every system
    return len(os.sched_getaffinity(0)) if limited else os.cpu_count() or 1


def proceed() -> None:
    """Raise CancelledError in a worker whose work is not wanted any more."""
    stop = getattr(_OWN, "stop", None)
    if stop is not None and stop.is_set():
        raise CancelledError("the attack was stopped")


def follows() -> bool:
    """Whether workers would compute as the caller does: modes do not pass on to threads."""
    return not _get_current_dispatch_mode_stack() and not _get_current_function_mode_stack()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Inside, PyTorch takes so many threads for an operation."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _begin(stop: threading.Event) -> None:
    _OWN.stop = stop
    torch.set_num_threads(1)
