"""Threads that share a network take turns where something is put on it, or read off it."""

from collections.abc import Callable
from functools import wraps
from threading import RLock
from typing import TypeVar

Run = TypeVar("Run", bound=Callable)

ALONE = RLock()
"""Held while hooks and other tensors are on a network. One for all: two would wait for each other.

What is replayed touches no network, so climbs of many threads wait in their first steps only.
"""


def alone(run: Run) -> Run:
    """The same function, run by one thread at a time."""

    @wraps(run)
    def taken(*args, **named):
        with ALONE:
            return run(*args, **named)

    return taken
