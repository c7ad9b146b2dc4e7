"""Normalisations written out, for `torch.func`.

Under vmap PyTorch 2.14 takes mean and deviation for constants in the gradient of
the weight of a normalisation by the input's own statistics, so that its slope in x is wrong.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class WrittenOut(TorchFunctionMode):
    """Inside, normalisations are computed by operations whose derivatives are right."""

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """The function, or what stands for it here."""
        return _INSTEAD.get(function, function)(*args, **(kwargs or {}))


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    z = _normalised(input, list(range(-len(normalized_shape), 0)), eps)
    z = z if weight is None else z * weight
    return z if bias is None else z + bias


def _written_out(function: Callable[..., Tensor], axes: list[int]) -> Callable[..., Tensor]:
    """A norm of each channel by the input's own statistics, over `axes` and those of space."""
    signature = inspect.signature(function)

    def norm(*args: Any, **kwargs: Any) -> Tensor:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        if given["running_mean"] is not None:
            return function(*args, **kwargs)
        z = given["input"]
        z = _normalised(z, [*axes, *range(2, z.ndim)], given["eps"])
        return _by_channel(z, given["weight"], given["bias"])

    return norm


def _by_channel(z: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    channels = (-1, *[1] * (z.ndim - 2))
    z = z if weight is None else z * weight.view(channels)
    return z if bias is None else z + bias.view(channels)


def _normalised(z: Tensor, axes: list[int], eps: float) -> Tensor:
    z = z - z.mean(axes, keepdim=True)
    return z * (z.square().mean(axes, keepdim=True) + eps).rsqrt()


_INSTEAD = {
    F.layer_norm: _layer_norm,
    torch.layer_norm: _layer_norm,
    F.instance_norm: _written_out(F.instance_norm, []),
    F.batch_norm: _written_out(F.batch_norm, [0]),
}
