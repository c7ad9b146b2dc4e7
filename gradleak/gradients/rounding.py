"""Networks whose corners are rounded off, for attackers to climb with.

Where a ReLU switches, the gradient of the loss in the weights jumps, and no slope tells of it. In a
copy of the network, max(z, 0) becomes h softplus(z / h), which has curvature in the place of the
corner. What was released stays what it was, and answers are judged with the network itself.
"""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gradleak.gradients import network
from gradleak.gradients.copies import kept

RELUS = (F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)


def rounded(model: nn.Module, x: Tensor, width: float) -> nn.Module:
    """A copy of the model that shares its weights, with each ReLU rounded off; or itself.

    x: examples (M, *shape). A ReLU is rounded over h = width times the deviation of its input
    within a channel, over examples and positions, averaged over channels. Without a ReLU there is
    nothing to round: a warning says so, and it is the model itself. As long as the model stays as
    it is, it is the same copy at each call.
    """
    return kept(model, ("rounded", x.shape, x.dtype, width), lambda: _copy(model, x, width))


def _copy(model: nn.Module, x: Tensor, width: float) -> nn.Module | None:
    seen = _Deviations()
    with torch.no_grad(), seen:
        network.call(model, {}, x)
    if not seen.found:
        warnings.warn(
            f"{type(model).__name__} calls no ReLU, so there is nothing in it to round off; the "
            "climb goes on with the network as it is",
            stacklevel=2,
        )
        return None
    shared = {id(t): t for t in (*model.parameters(), *model.buffers())}
    twin = copy.deepcopy(model, shared)
    for module in twin.modules():
        if type(module) is nn.ReLU:
            module.__class__ = _Rounds
    forward, widths = twin.forward, [width * deviation for deviation in seen.found]

    def softly(*args: Any, **kwargs: Any) -> Any:
        with _Rounded(widths):
            return forward(*args, **kwargs)

    twin.forward = softly
    return twin


class _Rounds(nn.ReLU):
    """Of another type, as the derivative of a ReLU is known elsewhere, and this one's is not."""


class _AtReLUs(TorchFunctionMode):
    """Does something else in the place of each ReLU, in the order in which they are called."""

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function not in RELUS:
            return function(*args, **kwargs)
        z = args[0] if args else kwargs["input"]
        inplace = kwargs.get("inplace", args[1:2] == (True,)) or function.__name__.endswith("_")
        return z.copy_(self.at(z.clone())) if inplace else self.at(z)

    def at(self, z: Tensor) -> Tensor:
        raise NotImplementedError


class _Deviations(_AtReLUs):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[float] = []

    def at(self, z: Tensor) -> Tensor:
        channels = z.transpose(0, 1).flatten(1) if z.ndim > 1 else z[None]
        self.found.append(float(channels.std(1).mean()))
        return torch.clamp_min(z, 0)


class _Rounded(_AtReLUs):
    def __init__(self, widths: list[float]) -> None:
        super().__init__()
        self.left, self.last = iter(widths), widths[-1]

    def at(self, z: Tensor) -> Tensor:
        # A forward that decides by x may call more of them than the examples showed.
        return F.softplus(z, 1 / next(self.left, self.last), threshold=20.0)
