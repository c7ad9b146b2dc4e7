"""What an attack costs at the least, and what a device can do."""

import time
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gradleak.models import Shape


def least_flops(model: nn.Module, shape: Shape) -> float:
    """The least arithmetic of one image-iteration with every weight's gradient made.

    Seven times the forward pass, less twice the first layer's share: forward, the derivative to
    each layer's output, each weight's gradient, and the derivative of all of that back to x.
    """
    device = next(model.parameters()).device
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    sizes = []
    handle = first.register_forward_hook(lambda m, args, out: sizes.append(out[0].numel()))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros((1, *shape), device=device))
    handle.remove()
    return 7 * counter.get_total_flops() - 2 * 2 * sizes[0] * first.weight[0].numel()


def product_speed(device: torch.device) -> float:
    """Operations per second of a matrix product, what the floor is measured in."""
    size = 8192 if device.type == "cuda" else 1024
    a = torch.rand(size, size, device=device)
    a @ a
    return 2 * size**3 / seconds(lambda: a @ a, device, 4)


def copy_speed(device: torch.device, size: int = 2**28) -> float:
    """Bytes per second that a copy reads and writes."""
    a = torch.rand(size // 4, device=device)
    b = a.clone()
    return 2 * size / seconds(lambda: b.copy_(a), device, 4)


def seconds(f: Callable[[], object], device: torch.device, count: int = 5) -> float:
    """How long the device takes for f, the mean of `count` times in a row."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    begin = time.perf_counter()
    for _ in range(count):
        f()
    wait()
    return (time.perf_counter() - begin) / count
