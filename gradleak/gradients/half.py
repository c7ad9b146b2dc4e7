"""Networks in another precision: attackers climb with float32, and are judged with float64.

A client's gradient is what its own network gives. But the slope of a density can be large, and
beyond 65504 float16 knows no number; and what half precision rounds away has no slope. A sum over
all entries of a gradient is of some 100,000 nats, of which one nat decides.
"""

import copy
from weakref import WeakKeyDictionary

import torch
from torch import nn

from gradleak.gradients.turns import alone

HALF = (torch.float16, torch.bfloat16)

Weights = tuple[tuple[int, int], ...]
Copies = dict[torch.dtype, tuple[Weights, nn.Module]]

_COPIES: WeakKeyDictionary[nn.Module, Copies] = WeakKeyDictionary()


def in_float32(model: nn.Module) -> nn.Module:
    """The model, or loss, with its weights in float32 if some are in half precision; else itself.

    As long as the weights stay as they are, it is the same copy at each call.
    """
    half = any(v.dtype in HALF for v in (*model.parameters(), *model.buffers()))
    return _copy(model, torch.float32) if half else model


def in_float64(model: nn.Module) -> nn.Module:
    """The same with all that are floating-point numbers in float64."""
    return _copy(model, torch.float64)


@alone
def _copy(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    held = [*model.parameters(), *model.buffers()]
    weights = tuple((v.data_ptr(), v._version) for v in held)
    copies = _COPIES.setdefault(model, {})
    if dtype not in copies or copies[dtype][0] != weights:
        copies[dtype] = weights, copy.deepcopy(model).to(dtype)
    return copies[dtype][1]
