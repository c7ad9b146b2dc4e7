"""From x and y to g: the gradients of many attacks at once."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import ismethod
from weakref import WeakKeyDictionary, WeakMethod, ref

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import grad, vmap

from gradleak.device import ordinary, usable
from gradleak.gradients import hooks, network, plain
from gradleak.gradients.agreement import attention, first_that_agrees
from gradleak.gradients.container import Entry, Gradient
from gradleak.gradients.copies import fingerprint
from gradleak.gradients.hooks import Loss
from gradleak.gradients.normalisation import WrittenOut
from gradleak.gradients.turns import alone
from gradleak.scales import check_kind


@dataclass
class Verdicts:
    """How the gradients of a model as it stands are computed, by what the answer depends on."""

    of: tuple[object, ...]
    ways: dict[object, tuple[Callable[[], object], str]] = field(default_factory=dict)


VERDICTS: WeakKeyDictionary[nn.Module, Verdicts] = WeakKeyDictionary()


@alone
@attention
@ordinary
def gradient(model: nn.Module, x: Tensor, y: Tensor, loss: Loss = F.cross_entropy) -> Gradient:
    """The gradient of the loss with respect to the trainable parameters, for N attacks.

    x is (N, B, *shape) and y (N, B): attack n's loss is the mean over its own B examples.
    Differentiable in x where x requires it. Parameters that do not require gradients are
    constants, and those that do not enter the loss have the gradient zero. `path` tells how it is
    computed, and what is refused; so is what is no module or tensor.
    """
    check_kind("model", model, nn.Module)
    check_kind("x", x, Tensor)
    check_kind("y", y, Tensor)
    x, y = usable(x), usable(y)
    way = _WAYS[path(model, x, y, loss)]
    return Gradient(way(model, x, y, loss, x.requires_grad and torch.is_grad_enabled()))


@alone
@attention
def general(model: nn.Module, x: Tensor, y: Tensor, loss: Loss = F.cross_entropy) -> Gradient:
    """The same through torch.func: a copy of each weight's gradient an attack."""
    return Gradient(_general(model, x, y, loss))


@alone
@ordinary
def path(model: nn.Module, x: Tensor, y: Tensor, loss: Loss = F.cross_entropy) -> str:
    """How `gradient` computes these gradients: "captured", "general" or "loop".

    Captured runs the network once for the whole batch and reads each layer's gradient off its
    input and output; it needs linear and convolutional layers that hold all trainable parameters.
    General is torch.func, for networks and losses that it knows. The loop over attacks is autograd,
    and a `LoopWarning` says why it is needed. The first is taken that gives for two attacks what
    autograd gives, and where x requires it the same slope in x.

    That is found out once for each model as it stands, shape and loss. Raises ValueError where even
    one attack cannot be differentiated, for layers in train mode, and for what depends on more than
    x and y.
    """
    network.check_mode(model)
    differentiable = x.requires_grad and torch.is_grad_enabled()
    key = (x.shape[1:], x.dtype, y.shape[1:], y.dtype, differentiable, _name(loss))
    held, now = VERDICTS.get(model), fingerprint(model)
    if held is None or held.of != now:
        held = VERDICTS[model] = Verdicts(now)
    judged, way = held.ways.get(key, (lambda: None, ""))
    if judged() is loss or (ismethod(loss) and judged()):  # a method is made anew each time
        return way
    ways = {k: way for k, way in _WAYS.items() if k != "captured" or hooks.supported(model)}
    found = first_that_agrees(ways, model, x, y, loss, differentiable)
    if found is None:
        return "loop"
    held.ways[key] = _weak(loss), found
    return found


def _name(loss: Loss) -> object:
    return (id(loss.__self__), id(loss.__func__)) if ismethod(loss) else id(loss)


def _weak(loss: Loss) -> Callable[[], object]:
    """The loss while it lives: it may hold the model, and another may get its place in memory."""
    try:
        return WeakMethod(loss) if ismethod(loss) else ref(loss)
    except TypeError:
        return lambda: loss


def _general(
    model: nn.Module, x: Tensor, y: Tensor, loss: Loss, differentiable: bool = True
) -> Mapping[str, Entry]:
    held = {k: p.detach() for k, p in model.named_parameters()}
    trainable = {k: held[k] for k, p in model.named_parameters() if p.requires_grad}

    def loss_of(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return plain.loss_at(model, {**held, **parameters}, x, y, loss)

    x = x if differentiable else x.detach()
    with network.left_as_found(model), WrittenOut(), warnings.catch_warnings():
        # Of an operation that vmap runs in a loop: still faster than a loop around everything.
        warnings.filterwarnings("ignore", "There is a performance drop")
        return vmap(grad(loss_of), in_dims=(None, 0, 0))(trainable, x, y)


_WAYS = {"captured": hooks.entries, "general": _general, "loop": plain.entries}
