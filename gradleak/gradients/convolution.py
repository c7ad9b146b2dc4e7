"""What a convolution needs to be attacked fast: its two derivatives, written by hand.

They equal PyTorch's own. Autograd would also make the derivative of the shared weight, which no
attack asks for, and its unfold and fold (im2col and its transpose) walk pixel by pixel on a CPU;
these copy whole rows, and leave each result in the memory format (channels first or last) of the
tensor it belongs to.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

Pair = tuple[int, int]
Two = tuple[Tensor, Tensor]
Map = Callable[[Tensor], Tensor]
FEW = 8  # channels that are too few to be innermost in memory
MANY = 64  # places of an output from which on convolutions gain by a group for each image


@dataclass(frozen=True)
class Geometry:
    """Where a kernel meets an image, (rows, columns) of each."""

    kernel: Pair
    stride: Pair
    dilation: Pair
    padding: Pair = (0, 0)

    def windows(self, a: Tensor) -> Tensor:
        """What each place of the kernel meets: a view (N, *kernel, C, rows, columns) of images.

        a (N, C, H, W) is padded already.
        """
        kernel, (down, right), step = self.kernel, self.stride, self.dilation
        height, width = (s - d * (k - 1) for s, d, k in zip(a.shape[2:], step, kernel, strict=True))
        a = a.unfold(2, height, step[0])[..., ::down].unfold(3, width, step[1])[..., ::right]
        return a.permute(0, 2, 3, 1, 4, 5)

    def forward(self, a: Tensor, weight: Tensor, bias: Tensor | None = None, groups: int = 1):
        """The convolution itself."""
        return F.conv2d(a, weight, bias, self.stride, self.padding, self.dilation, groups)

    def backward(self, a: Tensor, delta: Tensor, weight: Tensor, groups: int = 1) -> Tensor:
        """The derivative of the input, as torch.nn.grad's but in the memory format of a."""
        rest = self.stride, self.padding, self.dilation, False, (0, 0), groups, (True, False, False)
        return torch.ops.aten.convolution_backward(delta, a, weight, None, *rest)[0]


def gradients(layer: nn.Conv2d, a: Tensor, delta: Tensor) -> Two:
    """The gradients of weight and bias for each image, (N, *weight shape) and (N, O).

    a: the layer's input (N, C, H, W); delta: the loss's derivative with respect to its output.
    """
    geometry = Geometry(layer.kernel_size, layer.stride, layer.dilation)
    left, right, top, bottom = layer._reversed_padding_repeated_twice
    if (left, top) == (right, bottom) and _one_group_an_image(a, delta, geometry):
        rows = _InARow.apply(a), _InARow.apply(delta)
        return _Grouped.apply(*rows, replace(geometry, padding=(top, left)), len(a))
    a = F.pad(a, (left, right, top, bottom))
    a = a.contiguous() if a.shape[1] < FEW else a
    found, bias = _Product.apply(a, delta, geometry)
    return found.unflatten(2, (*geometry.kernel, -1)).permute(0, 1, 4, 2, 3), bias


def _one_group_an_image(a: Tensor, delta: Tensor, geometry: Geometry) -> bool:
    """Whether a convolution with a group for each image beats a product of patches.

    So it was on a CPU; on a graphics card nothing was measured.
    """
    large = a.shape[1] >= FEW and delta.shape[2:].numel() >= MANY
    return a.is_cpu and large and geometry.kernel != (1, 1) and geometry.stride == (1, 1)


def maps(layer: nn.Conv2d, a: Tensor) -> tuple[Map, Map] | None:
    """The derivative with respect to the input a, as a map of the slope, and its transpose.

    None where the padding is not the same on both sides.
    """
    left, right, top, bottom = layer._reversed_padding_repeated_twice
    if (left, top) != (right, bottom):
        return None
    weight = layer.weight.detach()
    geometry = Geometry(layer.kernel_size, layer.stride, layer.dilation, (top, left))

    def transposed(delta: Tensor) -> Tensor:
        if a.shape[1] >= FEW:
            return geometry.backward(a, delta, weight)
        # For images of few channels a product and a fold are faster on a CPU.
        height, width = a.shape[2] + 2 * top, a.shape[3] + 2 * left
        padded = a.new_empty(*a.shape[:2], height, width)
        patches = weight.permute(2, 3, 1, 0).flatten(0, 2) @ delta.flatten(2)
        found = _fold(patches.mT, padded, geometry)
        return found[:, :, top : top + a.shape[2], left : left + a.shape[3]]

    return transposed, lambda slope: geometry.forward(slope, weight)


class _Product(torch.autograd.Function):
    """Patches times delta, (N, O, K) with K = kernel size * C, and the sum of delta, (N, O)."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, delta: Tensor, geometry: Geometry) -> Two:
        ctx.save_for_backward(a, delta)
        ctx.geometry = geometry
        patches, flat = _unfold(a, geometry), delta.flatten(2)
        return _product_like(patches, flat, patches), flat.sum(2)

    @staticmethod
    def backward(ctx: Any, slope: Tensor, of_bias: Tensor) -> tuple[Tensor, Tensor, None]:
        a, delta = ctx.saved_tensors
        patches, flat = _unfold(a, ctx.geometry), delta.flatten(2).mT
        of_patches = _product_like(patches, flat, slope)
        of_delta = _product_like(flat, patches, slope.mT).add_(of_bias.unsqueeze(1))
        of_delta = of_delta.mT.unflatten(2, delta.shape[2:])
        return _fold(of_patches, a, ctx.geometry), of_delta, None


class _InARow(torch.autograd.Function):
    """All images as the channels of one, (1, N * C, H, W)."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        ctx.shape = images.shape
        return images.reshape(1, -1, *images.shape[2:])

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return channels_last(slope.view(ctx.shape))


class _Grouped(torch.autograd.Function):
    """The same of N images in a row, by convolutions that have a group for each image.

    (N, O, C, *kernel) and (N, O).
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, delta: Tensor, geometry: Geometry, images: int) -> Two:
        ctx.save_for_backward(a, delta)
        ctx.geometry, ctx.images = geometry, images
        shape = (delta.shape[1], a.shape[1] // images, *geometry.kernel)
        rest = geometry.stride, geometry.padding, geometry.dilation, images
        weight = conv2d_weight(a, shape, delta, *rest)
        return weight.unflatten(0, (images, -1)), delta.sum((0, 2, 3)).view(images, -1)

    @staticmethod
    def backward(ctx: Any, slope: Tensor, of_bias: Tensor) -> tuple[Tensor, Tensor, None, None]:
        a, delta = ctx.saved_tensors
        geometry, slope = ctx.geometry, slope.flatten(0, 1)
        of_delta = geometry.forward(a, slope, of_bias.flatten(), ctx.images)
        return geometry.backward(a, delta, slope, ctx.images), of_delta, None, None


def channels_last(x: Tensor) -> Tensor:
    """Images with channels innermost in memory, which a CPU pools and copies several times faster.

    Anything else as it is.
    """
    if x.ndim == 4 and x.shape[1] == 1:
        # Grey images are in both formats; only their strides tell convolutions which is meant.
        return x.flatten(1).unflatten(1, (*x.shape[2:], 1)).permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def _unfold(a: Tensor, geometry: Geometry) -> Tensor:
    """Patches (N, places, K), with K or places innermost in memory as channels are in `a`."""
    windows = geometry.windows(a)
    if a.is_contiguous():
        return windows.flatten(4).flatten(1, 3).mT
    return windows.permute(0, 4, 5, 1, 2, 3).flatten(3).flatten(1, 2)


def _fold(patches: Tensor, like: Tensor, geometry: Geometry) -> Tensor:
    """The transpose of `_unfold`: each pixel is the sum of what its patches hold."""
    a = torch.zeros_like(like)
    places = geometry.windows(a).shape[4:]
    patches = patches.unflatten(1, places).unflatten(3, (*geometry.kernel, -1))
    steps = list(zip(geometry.dilation, geometry.stride, places, strict=True))
    for place in itertools.product(*map(range, geometry.kernel)):
        rows, columns = (
            slice(k * dilation, k * dilation + (count - 1) * stride + 1, stride)
            for k, (dilation, stride, count) in zip(place, steps, strict=True)
        )
        # add_, as += would copy the sum onto itself
        a[:, :, rows, columns].add_(patches[(..., *place, slice(None))].permute(0, 3, 1, 2))
    return a


def _product_like(like: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """The matrix product (N, rows, columns), rows or columns innermost in memory as in `like`."""
    if like.stride(2) == 1:
        return torch.bmm(left, right)
    return torch.bmm(right.mT, left.mT).mT
