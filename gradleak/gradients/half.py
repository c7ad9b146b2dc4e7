"""Networks in another precision: attackers climb with float32, and are judged with float64.

A client's gradient is what its own network gives. But the slope of a density can be large, and
beyond 65504 float16 knows no number; and what half precision rounds away has no slope. A sum over
all entries of a gradient is of some 100,000 nats, of which one nat decides.
"""

import copy

import torch
from torch import nn

from gradleak.gradients.copies import kept

HALF = (torch.float16, torch.bfloat16)


def in_float32(model: nn.Module) -> nn.Module:
    """The model, or loss, with its weights in float32 if some are in half precision; else itself.

    As long as the model stays as it is, it is the same copy at each call.
    """
    half = any(v.dtype in HALF for v in (*model.parameters(), *model.buffers()))
    return _in(model, torch.float32) if half else model


def in_float64(model: nn.Module) -> nn.Module:
    """The same with all that are floating-point numbers in float64."""
    return _in(model, torch.float64)


def _in(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    return kept(model, dtype, lambda: copy.deepcopy(model).to(dtype))
