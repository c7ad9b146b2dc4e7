"""What a network does with an input of a view's shape: in which order its layers run.

Layers may be registered in any other order. Only the public description is used.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradleak.client import ServerView
from gradleak.gradients import ALONE, layer_of
from gradleak.randomness import PROBE, generator


@dataclass(frozen=True)
class Call:
    """A call of a layer: its name, what went in and what came out."""

    name: str
    layer: nn.Module
    a: Tensor
    z: Tensor


@dataclass(frozen=True)
class Run:
    """One run on the random examples x of one client, (B, *shape), with B = 1 without batch size.

    output: of the network. calls: of the layers that own released parameters, in their order.
    """

    x: Tensor
    output: Any
    calls: list[Call]


@torch.enable_grad()
def run(view: ServerView) -> Run:
    """Run the client's network once. Raises ValueError where it does not take the view's shape."""
    client, calls = view.client, list[Call]()
    shape = (1, *view.shape) if client.batch_size is None else view.shape
    draw = torch.rand if len(shape) == 4 else torch.randn  # images lie in [0, 1]
    x, _ = client.placed(draw(shape, generator=generator(PROBE)), torch.zeros(()))

    def note(name: str) -> Callable[..., None]:
        def keep(layer: nn.Module, args: tuple, named: dict[str, Any], z: object) -> None:
            a = next(iter([*args, *named.values()]), None)
            if isinstance(a, Tensor) and isinstance(z, Tensor):
                calls.append(Call(name, layer, a, z))

        return keep

    modules, names = dict(client.model.named_modules()), dict.fromkeys(map(layer_of, view.g))
    with ALONE, ExitStack() as handles:
        for name in names.keys() & modules.keys():
            handle = modules[name].register_forward_hook(note(name), with_kwargs=True)
            handles.callback(handle.remove)
        try:
            output = client.model(x)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise ValueError(
                f"the network does not run on examples of shape {tuple(shape[1:])}, so the order "
                f"of its layers is not known; use analytic.layer_input(view.g, layer): {error}"
            ) from error
    if not calls:
        raise ValueError(
            "no layer with released parameters was called with a tensor, so there is none to read "
            "off; search for the image: gradleak.inverting_gradients"
        )
    return Run(x, output, calls)
