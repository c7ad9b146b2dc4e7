"""Random numbers keyed by what they belong to, not by their place in a batch.

Splitting a batch, permuting it or running it on another device then changes nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral

import numpy as np
import torch

# What a random number is for.
NOISE, START, MASK, MODEL, BATCHES, HIDDEN_MASK, BALL = range(7)
DIRECTION, TRANSFORM, SEARCH, LATENT, DENOISER, LANGEVIN, AMORTISED, PATCHES = range(7, 15)
UNROLLED = 15


def generator(*key: int) -> torch.Generator:
    """A CPU generator whose state depends on all of `key` (non-negative integers)."""
    if not all(isinstance(k, Integral) and not isinstance(k, bool) and k >= 0 for k in key):
        raise ValueError(f"a seed and a key must be whole numbers, at least 0, got {key}")
    seed = np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1)
    return torch.Generator().manual_seed(int(seed))


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """PyTorch's own randomness, which initialises modules, depends on all of `key` inside."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(*key).initial_seed())
        yield
