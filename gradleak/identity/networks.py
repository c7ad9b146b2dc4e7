"""Networks: how they were made, and all that they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gradleak.identity.origins import asks_for_training, decides, library

HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
BLANK = {*vars(nn.Module()), "recipe"}

Read = Callable[[Any, str], list | str]
"""read(part, the way to it): the description of any part."""


@dataclass(frozen=True)
class Recipe:
    """How a network was made: a digest of `how`, and one of the network that came of it."""

    how: str
    weights: str


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
    kind = type(layer)
    if isinstance(layer, torch.jit.ScriptModule):  # its code is nowhere to be seen
        return [read(layer._c, at)]
    private = library(kind.__module__)  # its underscored attributes are bookkeeping
    settings = {
        name: value
        for name, value in sorted(vars(layer).items())
        if name not in BLANK
        and value is not None
        and decides(value)
        and not (private and name.startswith("_"))
    }
    parts = [[name, read(value, f"{at}.{name}")] for name, value in settings.items()]
    hooks = [read(hook, f"{at}.{kind}") for kind in HOOKS for hook in vars(layer)[kind].values()]
    return [read(kind, at), parts, hooks, str(layer.training and asks_for_training(kind))]
