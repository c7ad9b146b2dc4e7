"""The precision of matrix products: their inputs in float32, or rounded.

Graphics cards multiply faster when the inputs of a product are rounded, and `products` asks for
it. `MatrixInputs` rounds them in software, on any device: just as exact as a card that does, and no
faster. Images, Adam's state and what was released stay in float32 under both.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import wraps
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import (
    _disable_current_modes,
    _get_current_dispatch_mode_stack,
)
from torch.utils._pytree import tree_map_only

from gradleak.device.dispatch import Dispatched
from gradleak.names import choose

Run = TypeVar("Run", bound=Callable)

PRECISIONS = {"float32": 23, "tf32": 10, "bfloat16": 7}
"""Bits of the fraction that each format keeps."""

_ATEN = torch.ops.aten
PRODUCTS = (_ATEN.mm, _ATEN.bmm, _ATEN.addmm, _ATEN.baddbmm, _ATEN.convolution,
            _ATEN.convolution_backward)  # fmt: skip


@contextmanager
def products(precision: str) -> Iterator[None]:
    """Inside, matrix products and convolutions take inputs of this precision, as fast as they can.

    precision: one of PRECISIONS; else raises ValueError. tf32 is for graphics cards; other devices
    take it where they know it. bfloat16 rounds results as well. Outside, PyTorch's own choice for
    graphics cards is tf32 in convolutions and float32 in all else.
    """
    choose("precision", precision, PRECISIONS)
    before, tf32 = _read(), precision == "tf32"
    if isinstance(before[1], bool):
        _write("high" if tf32 else "highest", tf32)
    else:
        _write(*["tf32" if tf32 else "ieee"] * 2)
    try:
        with _Bfloat16() if precision == "bfloat16" else nullcontext():
            yield
    finally:
        _write(*before)


@contextmanager
def unrounded() -> Iterator[None]:
    """Inside, float32 is float32, whatever was chosen outside."""
    with products("float32"), _disable_current_modes():
        yield


def ordinary(run: Run) -> Run:
    """The same function, which leaves autocast and inference mode, if its caller is in one."""

    @wraps(run)
    def left(*args, **named):
        casts = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
        if not casts and not torch.is_inference_mode_enabled():
            return run(*args, **named)
        with ExitStack() as stack:
            for kind in casts:
                stack.enter_context(torch.autocast(kind, enabled=False))
            stack.enter_context(torch.inference_mode(False))
            return run(*args, **named)

    return left


def usable(v: Tensor) -> Tensor:
    """v, or a copy where it was made in inference mode, and so knows no derivatives."""
    return v.clone() if v.is_inference() else v


def chosen() -> str:
    """How graphics cards compute products as things stand, in words."""
    rounded = ("high", "medium", "tf32", True)
    matmul, convolution = ("tf32" if said in rounded else "float32" for said in _read())
    return matmul if matmul == convolution else f"{matmul}, convolutions {convolution}"


def rounding() -> str:
    """How the inputs of products are rounded where this is called, by request; "" for not at all.

    What PyTorch does by itself on a graphics card is not meant.
    """
    said = ["tf32"] if chosen() == "tf32" else []
    for mode in _get_current_dispatch_mode_stack():
        if isinstance(mode, _Bfloat16):
            said.append("bfloat16")
        elif isinstance(mode, MatrixInputs) and mode.bits < PRECISIONS["float32"]:
            said.append(f"{mode.bits} bits")
    return " ".join(said)


def _read() -> tuple[str | bool, ...]:
    """PyTorch's choice for matrix products and convolutions, in the words it was made in.

    There is an old way to say it and a new one, and once the new one was used the old one is
    refused.
    """
    try:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:
        backends = torch.backends
        return backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision


def _write(matmul: str | bool, convolution: str | bool) -> None:
    if isinstance(convolution, bool):
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = convolution
    else:
        torch.backends.cuda.matmul.fp32_precision = matmul
        torch.backends.cudnn.conv.fp32_precision = convolution


class _Bfloat16(Dispatched):
    """Products of float32 tensors are computed in bfloat16, and returned in float32."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = [x.dtype for x in args if isinstance(x, Tensor)]
        into = function._schema.is_mutable  # a tensor that is given keeps its precision
        if function.overloadpacket not in PRODUCTS or into or set(given) != {torch.float32}:
            return function(*args, **(kwargs or {}))
        result = function(*tree_map_only(Tensor, Tensor.bfloat16, args), **(kwargs or {}))
        return tree_map_only(Tensor, Tensor.float, result)


class MatrixInputs(Dispatched):
    """While this is entered, matrix products and convolutions take inputs of this precision."""

    def __init__(self, precision: str) -> None:
        super().__init__()
        self.bits = PRECISIONS[choose("precision", precision, PRECISIONS)]

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
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
