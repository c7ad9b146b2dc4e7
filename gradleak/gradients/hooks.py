"""Gradients of many attacks from one run of the network with shared weights.

A layer's gradient is made of its input and of the loss's derivative with respect to its output.
Both are read off with hooks, so the module stays as it is and no weight is ever copied.
"""

from collections.abc import Callable
from contextlib import ExitStack

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import vmap

from gradleak.gradients import convolution, network, vjps
from gradleak.gradients.convolution import channels_last
from gradleak.gradients.outer import Outer
from gradleak.gradients.turns import ALONE

Loss = Callable[[Tensor, Tensor], Tensor]
"""loss(model(x), y) -> scalar, the mean over the examples of x."""


def supported(model: nn.Module) -> bool:
    """Whether layers whose gradients are known here hold all of the trainable parameters.

    Those are linear and plain convolutional ones, and batch normalisation by running statistics.
    """
    held = {id(p) for _, layer in _layers(model) for p in (layer.weight, layer.bias)}
    return all(id(p) in held for p in model.parameters() if p.requires_grad)


@torch.enable_grad()
def entries(
    model: nn.Module, x: Tensor, y: Tensor, loss: Loss, differentiable: bool
) -> dict[str, Tensor | Outer]:
    """Parameter name -> gradient of N attacks; x (N, B, *shape), y (N, B).

    Linear layers are kept as factors; if not differentiable (in x), as those of each entry.
    """
    attacks = len(x)
    # Without a derivative to follow, x still has to start the graph that ends in each output.
    x = x if differentiable else x.detach().requires_grad_()
    layers = _layers(model)
    output, calls = _run(model, layers, channels_last(x.flatten(0, 1)))
    total = _sum_of_losses(loss, output.unflatten(0, x.shape[:2]), y)
    outputs = [z for uses in calls.values() for _, z in uses]
    deltas = iter(torch.autograd.grad(total, outputs, create_graph=differentiable))
    found: dict[str, Tensor | Outer] = {}
    for name, layer in layers:
        used = [(a, next(deltas)) for a, _ in calls[name]]
        of = _linear if isinstance(layer, nn.Linear) else _summed
        for kind, value in of(layer, used, attacks).items():
            if not differentiable:
                value = value.exactly() if isinstance(value, Outer) else value.detach()
            found[f"{name}.{kind}" if name else kind] = value
    return {k: found[k] for k, p in model.named_parameters() if p.requires_grad}


def _sum_of_losses(loss: Loss, output: Tensor, y: Tensor) -> Tensor:
    if loss is F.cross_entropy and output.ndim == 3 and y.ndim == 2:
        # The usual loss, without the overhead of vmap: the mean over the labels that count.
        each = loss(output.flatten(0, 1), y.flatten(), reduction="none").view_as(y)
        return (each / (y != -100).sum(1, keepdim=True)).sum()
    try:
        return vmap(loss)(output, y).sum()
    except Exception:
        # One-hot labels, masks, .item(): the loss of one attack after the other takes little time.
        return torch.stack([loss(*each) for each in zip(output, y, strict=True)]).sum()


Layers = list[tuple[str, nn.Linear | nn.Conv2d | nn.BatchNorm2d]]

Uses = list[tuple[Tensor, Tensor]]
"""For each call of a layer: its input, and its output or the derivative with respect to that."""


def _run(model: nn.Module, layers: Layers, x: Tensor) -> tuple[Tensor, dict[str, Uses]]:
    """The network's output, and what went into and came out of each layer."""
    calls: dict[str, Uses] = {name: [] for name, _ in layers}
    names = {layer: name for name, layer in layers}
    in_place = any(getattr(module, "inplace", False) for module in model.modules())

    def keep(layer: nn.Module, args: tuple[Tensor, ...], z: Tensor) -> Tensor:
        z = vjps.output(layer, args[0], z)
        z = z if isinstance(layer, nn.Linear) else channels_last(z)
        calls[names[layer]].append((args[0], z))
        # An in-place activation would overwrite z.
        return z.clone() if in_place else z

    constant = {k: p.detach() for k, p in model.named_parameters()}
    with ALONE, ExitStack() as handles:
        for layer in names:
            handles.callback(layer.register_forward_hook(keep).remove)
        for module in () if in_place else model.modules():
            if module not in names:
                handles.callback(module.register_forward_hook(_lean).remove)
        return network.call(model, constant, x), calls


def _lean(layer: nn.Module, args: tuple[object, ...], z: object) -> object:
    """A layer without parameters, with derivatives that cost no more than they need to."""
    if not isinstance(z, Tensor):
        return z
    z = vjps.output(layer, args[0], z) if args and isinstance(args[0], Tensor) else z
    if z.ndim == 4 and z.requires_grad:
        # Derivatives come back in the format of the images, also through a flattening.
        z.register_hook(channels_last)
    return z


def _layers(model: nn.Module) -> Layers:
    return [
        (name, module)
        for name, module in model.named_modules()
        if type(module) is nn.Linear
        or (type(module) is nn.Conv2d and module.groups == 1 and module.padding_mode == "zeros")
        or vjps.fixed_norm(module)
    ]


def _linear(layer: nn.Linear, uses: Uses, attacks: int) -> dict[str, Tensor | Outer]:
    a = torch.cat([a.reshape(attacks, -1, layer.in_features) for a, _ in uses], 1)
    delta = torch.cat([d.reshape(attacks, -1, layer.out_features) for _, d in uses], 1)
    weight = Outer(delta, a)
    many = delta.shape[1] * (layer.in_features + layer.out_features)
    factors_are_smaller = many < layer.in_features * layer.out_features
    return {"weight": weight if factors_are_smaller else weight.dense(), "bias": delta.sum(1)}


def _norm(layer: nn.BatchNorm2d, a: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
    mean, deviation = (v.view(1, -1, 1, 1) for v in vjps.statistics(layer))
    return (delta * ((a - mean) / deviation)).sum((2, 3)), delta.sum((2, 3))


def _summed(layer: nn.Module, uses: Uses, attacks: int) -> dict[str, Tensor | Outer]:
    """The sum over the calls of a layer and over the examples of each attack."""
    of = {nn.Conv2d: convolution.gradients, nn.BatchNorm2d: _norm}[type(layer)]
    weights, biases = (sum(p[1:], p[0]) for p in zip(*(of(layer, *u) for u in uses), strict=True))
    found = {"weight": weights, "bias": biases}
    if len(weights) == attacks:
        return found
    return {k: v.unflatten(0, (attacks, -1)).sum(1) for k, v in found.items()}
