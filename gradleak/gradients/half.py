"""Networks in half precision: attackers compute with the same weights in float32.

A client's gradient is what its own network gives. But the slope of a density can be large, and
beyond 65504 float16 knows no number; and what half precision rounds away has no slope.
"""

import copy
from weakref import WeakKeyDictionary

import torch
from torch import nn

from gradleak.gradients.turns import alone

HALF = (torch.float16, torch.bfloat16)

Weights = tuple[tuple[int, int], ...]

_COPIES: WeakKeyDictionary[nn.Module, tuple[Weights, nn.Module]] = WeakKeyDictionary()


@alone
def in_float32(model: nn.Module) -> nn.Module:
    """The model, or loss, with its weights in float32 if some are in half precision; else itself.

    As long as the weights stay as they are, it is the same copy at each call.
    """
    held = [*model.parameters(), *model.buffers()]
    if not any(v.dtype in HALF for v in held):
        return model
    weights = tuple((v.data_ptr(), v._version) for v in held)
    if model not in _COPIES or _COPIES[model][0] != weights:
        _COPIES[model] = weights, copy.deepcopy(model).float()
    return _COPIES[model][1]
