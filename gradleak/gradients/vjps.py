"""Layers whose derivatives autograd makes more of than an attack needs.

The derivative of a convolution, a ReLU, an average pooling or a normalisation by fixed statistics
is a linear map of the slope that comes back. Autograd also makes its derivatives in the shared
weight, which no attack asks for, and in the layer's input, which are zeros that it adds.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradleak.gradients import convolution
from gradleak.gradients.convolution import Map

GATE = torch.ops.aten.threshold_backward  # the slope where a ReLU is open; its own transpose


def output(layer: nn.Module, a: Tensor, z: Tensor) -> Tensor:
    """The layer's output z again, with a derivative that makes no more than it needs to."""
    maps = _maps(layer, a.detach(), z.detach()) if z.requires_grad else None
    if maps is None:
        return z
    if type(layer) is nn.AvgPool2d and hasattr(a, "before_gate"):
        # It takes the ReLU before it along, which spares a tensor of the larger size.
        a, maps = a.before_gate, _after_gate(maps, a.detach())
    found = _Output.apply(a, z.detach(), *maps)
    if type(layer) is nn.ReLU:
        found.before_gate = a
    return found


def _maps(layer: nn.Module, a: Tensor, z: Tensor) -> tuple[Map, Map] | None:
    """The derivative with respect to the input, as a map of the slope, and its transpose."""
    if type(layer) is nn.Conv2d:
        return convolution.maps(layer, a)
    if type(layer) is nn.ReLU and not layer.inplace:
        return (lambda slope: GATE(slope, z, 0),) * 2
    if type(layer) is nn.AvgPool2d and layer.divisor_override is None:
        return _pool_maps(layer, a)
    if fixed_norm(layer):
        scale = (layer.weight.detach() / statistics(layer)[1]).view(1, -1, 1, 1)
        return (lambda slope: slope * scale,) * 2
    return None


def fixed_norm(layer: nn.Module) -> bool:
    """Whether it is a batch normalisation that uses its running statistics, with a weight."""
    running = type(layer) is nn.BatchNorm2d and not layer.training and layer.affine
    return running and layer.track_running_stats


def statistics(layer: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """The running mean and the deviation that it divides by, (C,) each."""
    return layer.running_mean, (layer.running_var + layer.eps).sqrt()


def _after_gate(maps: tuple[Map, Map], opened: Tensor) -> tuple[Map, Map]:
    """A layer's maps from before the ReLU that gave its input `opened`."""
    back, forth = maps

    def through(slope: Tensor) -> Tensor:
        slope = back(slope)  # a new tensor, which may be overwritten
        return GATE.grad_input(slope, opened, 0, grad_input=slope)

    return through, lambda slope: forth(GATE(slope, opened, 0))


def _pool_maps(layer: nn.AvgPool2d, a: Tensor) -> tuple[Map, Map]:
    sizes = (layer.kernel_size, layer.stride, layer.padding)
    pairs = [[v, v] if isinstance(v, int) else list(v) for v in sizes]
    rest = (layer.ceil_mode, layer.count_include_pad)
    return (
        lambda slope: torch.ops.aten.avg_pool2d_backward(slope, a, *pairs, *rest, None),
        lambda slope: F.avg_pool2d(slope, *pairs, *rest),
    )


class _Output(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, z: Tensor, back: Map, forth: Map) -> Tensor:
        ctx.maps = back, forth
        return z.detach()  # `view_as` would hide the format of a single image

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None, None]:
        return _Linear.apply(slope, *ctx.maps), None, None, None


class _Linear(torch.autograd.Function):
    """A linear map, whose derivative is its transpose."""

    @staticmethod
    def forward(ctx: Any, slope: Tensor, there: Map, back: Map) -> Tensor:
        ctx.maps = back, there
        return there(slope)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        return _Linear.apply(slope, *ctx.maps), None, None
