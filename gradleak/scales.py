"""A number, or one for each attack."""

from torch import Tensor

Scale = float | Tensor
"""A number, or one for each attack: a tensor (N,)."""


def per_attack(scale: Scale, like: Tensor) -> Scale:
    """Shape a number for each attack, (N,), so that it multiplies a tensor (N, ...)."""
    if isinstance(scale, Tensor) and scale.ndim:
        return scale.to(like).reshape(-1, *[1] * (like.ndim - 1))
    return scale
