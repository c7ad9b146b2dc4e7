"""What a client does to its images before it takes a gradient."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


class Transform:
    """A random change of a client's images: inherit from it and say what it does."""

    def __call__(self, x: Tensor, keys: Sequence[tuple[int, ...]]) -> Tensor:
        """T_n(x_n) for images (N, C, H, W) in [0, 1]; T_n depends on keys[n] alone."""
        raise NotImplementedError(f"{type(self).__name__} needs a method __call__(x, keys)")

    def image(self, seen: Tensor) -> Tensor:
        """The images that records score, of what the network saw: all of it, by default."""
        return seen
