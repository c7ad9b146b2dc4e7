"""Layers whose derivatives autograd makes more of than an attack needs.

The derivative of an average pooling and of a ReLU is linear in the slope that comes back.
Autograd also makes its derivative in the layer's input, which is zero, and adds it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def output(layer: nn.Module, a: Tensor, z: Tensor) -> Tensor:
    """The layer's output z again, with a derivative that leaves the zeros out."""
    if not z.requires_grad:
        return z
    if type(layer) is nn.ReLU and not layer.inplace:
        return _ReLU.apply(a, z.detach())
    if type(layer) is nn.AvgPool2d and layer.divisor_override is None:
        return _AvgPool.apply(a, z.detach(), layer)
    return z


class _ReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return _Gate.apply(slope, *ctx.saved_tensors), None


class _Gate(torch.autograd.Function):
    """The slope where the ReLU is open: its own transpose."""

    @staticmethod
    def forward(ctx: Any, slope: Tensor, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return torch.ops.aten.threshold_backward(slope, z, 0)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return _Gate.apply(slope, *ctx.saved_tensors), None


class _AvgPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, z: Tensor, layer: nn.AvgPool2d) -> Tensor:
        ctx.save_for_backward(a)
        ctx.layer = layer
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        return _Spread.apply(slope, *ctx.saved_tensors, ctx.layer), None, None


class _Spread(torch.autograd.Function):
    """The transpose of an average pooling, whose transpose is that pooling."""

    @staticmethod
    def forward(ctx: Any, slope: Tensor, a: Tensor, layer: nn.AvgPool2d) -> Tensor:
        ctx.options = (layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode,
                       layer.count_include_pad)  # fmt: skip
        pairs = [[v, v] if isinstance(v, int) else list(v) for v in ctx.options[:3]]
        return torch.ops.aten.avg_pool2d_backward(slope, a, *pairs, *ctx.options[3:], None)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        return F.avg_pool2d(slope, *ctx.options), None, None
