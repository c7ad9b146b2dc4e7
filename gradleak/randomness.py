"""Random numbers keyed by what they belong to, not by their place in a batch.

Splitting a batch, permuting it or running it on another device then changes nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from operator import index

import numpy as np
import torch

# What a random number is for.
NOISE, START, MASK, MODEL, BATCHES, HIDDEN_MASK, BALL = range(7)
DIRECTION, TRANSFORM, SEARCH, LATENT, DENOISER, LANGEVIN, AMORTISED, PATCHES = range(7, 15)
UNROLLED, PROBE = 15, 16


def check_seed(name: str, *numbers: int) -> tuple[int, ...]:
    """The numbers of a seed or key; ValueError unless all are whole, and none is negative."""
    try:
        whole = tuple(map(index, numbers))
    except TypeError:
        whole = (-1,)
    if min(whole, default=0) < 0 or any(isinstance(number, bool) for number in numbers):
        raise ValueError(f"{name} must be whole numbers, at least 0, got {numbers!r:.200}")
    return whole


def generator(*key: int) -> torch.Generator:
    """A CPU generator whose state depends on all of `key` (non-negative integers)."""
    key = check_seed("a seed and a key", *key)
    seed = np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1)
    return torch.Generator().manual_seed(int(seed))


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """PyTorch's own randomness, which initialises modules, depends on all of `key` inside."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(*key).initial_seed())
        yield
