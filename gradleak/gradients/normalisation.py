"""Normalisations written out, for `torch.func`.

Under vmap PyTorch 2.14 takes mean and deviation for constants in the gradient of
the weight of a normalisation by the input's own statistics, so that its slope in x is wrong.
"""

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


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if running_mean is not None:
        rest = (weight, bias, use_input_stats, momentum, eps)
        return F.instance_norm(input, running_mean, running_var, *rest)
    return _by_channel(_normalised(input, list(range(2, input.ndim)), eps), weight, bias)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if running_mean is not None:
        rest = (weight, bias, training, momentum, eps)
        return F.batch_norm(input, running_mean, running_var, *rest)
    return _by_channel(_normalised(input, [0, *range(2, input.ndim)], eps), weight, bias)


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
    F.instance_norm: _instance_norm,
    F.batch_norm: _batch_norm,
}
