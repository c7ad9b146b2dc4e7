"""Networks: all that they are."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from gradleak.identity.origins import asks_for_training, decides, library

HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
MADE = "_made"  # the attribute that holds a digest of how a network was made, and one of what came
BLANK = {*vars(nn.Module()), MADE}
Read = Callable[[Any, str], list | str]  # read(part, the way to it): the description of any part


def layers(what: nn.Module, read: Read, at: str = "") -> list:
    """Classes, settings, hooks and tensors of all layers; what is tied is told."""
    told, first = [], {}
    for path, layer in what.named_modules(remove_duplicate=False):
        here = f"{at}.{path}".rstrip(".")
        told.append([path, *_layer(layer, read, here)])
        for name, tensor in [*layer._parameters.items(), *layer._buffers.items()]:
            if tensor is not None:
                tied = first.setdefault(id(tensor), f"{path}.{name}")
                told.append([name, tied, str(tensor.requires_grad), read(tensor, here)])
    return told


def _layer(layer: nn.Module, read: Read, at: str) -> list:
    kind, own = type(layer), vars(layer)
    if isinstance(layer, torch.jit.ScriptModule):  # its code is nowhere to be seen
        return [read(layer._c, at)]
    private = library(kind.__module__)  # its underscored attributes are bookkeeping
    names = sorted(k for k in own.keys() - BLANK if not (private and k.startswith("_")))
    parts = [
        [k, read(own[k], f"{at}.{k}")] for k in names if own[k] is not None and decides(own[k])
    ]
    hooks = [read(hook, f"{at}.{hooks}") for hooks in HOOKS for hook in own[hooks].values()]
    return [read(kind, at), parts, hooks, str(layer.training and asks_for_training(kind))]
