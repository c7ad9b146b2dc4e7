"""What fewer bits in matrix products do to an attack: a simulation that runs on any device.

Graphics cards multiply faster when the inputs of a product are rounded; on one that can,
`torch.set_float32_matmul_precision("high")` asks for it. Here the inputs are rounded in software
instead: just as exact, and no faster. Images, Adam's state and what was released stay in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

PRECISIONS = {"float32": 23, "tf32": 10, "bfloat16": 7}
"""Bits of the fraction that each format keeps."""

_ATEN = torch.ops.aten
PRODUCTS = (_ATEN.mm, _ATEN.bmm, _ATEN.addmm, _ATEN.baddbmm, _ATEN.convolution,
            _ATEN.convolution_backward)  # fmt: skip


class MatrixInputs(TorchDispatchMode):
    """While this is entered, matrix products and convolutions take inputs of this precision."""

    def __init__(self, precision: str) -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise ValueError(f"precision is one of {', '.join(PRECISIONS)}, got {precision!r}")
        self.bits = PRECISIONS[precision]

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        """Round the inputs of a product, and run it."""
        if function.overloadpacket in PRODUCTS:
            args = tree_map_only(Tensor, lambda x: rounded(x, self.bits), args)
        return function(*args, **(kwargs or {}))


def rounded(x: Tensor, bits: int) -> Tensor:
    """float32 numbers rounded to the nearest with `bits` bits of fraction; others unchanged."""
    if x.dtype != torch.float32 or bits == 23:
        return x
    drop = 23 - bits
    whole = x.view(torch.int32)
    nearest = (whole + (1 << (drop - 1)) - 1 + ((whole >> drop) & 1)) >> drop << drop
    return torch.where(x.isfinite(), nearest.view(torch.float32), x)
