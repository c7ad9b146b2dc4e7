"""From x and y to g: the gradients of many attacks at once."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from gradleak.device import unrounded
from gradleak.gradients import hooks
from gradleak.gradients.container import Gradient
from gradleak.gradients.hooks import Loss


def gradient(model: nn.Module, x: Tensor, y: Tensor, loss: Loss = F.cross_entropy) -> Gradient:
    """The gradient of the loss with respect to the trainable parameters, for N attacks.

    x is (N, B, *shape) and y (N, B): attack n's loss is the mean over its own B examples.
    Differentiable in x where x requires it. Parameters that do not require gradients are
    constants. `path` tells how it is computed.
    """
    if path(model, x, y, loss) == "captured":
        differentiable = x.requires_grad and torch.is_grad_enabled()
        return Gradient(hooks.entries(model, x, y, loss, differentiable))
    return general(model, x, y, loss)


def general(model: nn.Module, x: Tensor, y: Tensor, loss: Loss = F.cross_entropy) -> Gradient:
    """The same for any network, through torch.func: a copy of each weight's gradient an attack."""
    held = {k: p.detach() for k, p in model.named_parameters()}
    trainable = {k: held[k] for k, p in model.named_parameters() if p.requires_grad}

    def loss_of(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return loss(functional_call(model, {**held, **parameters}, (x,)), y)

    return Gradient(vmap(grad(loss_of), in_dims=(None, 0, 0))(trainable, x, y))


def path(model: nn.Module, x: Tensor, y: Tensor, loss: Loss = F.cross_entropy) -> str:
    """How `gradient` computes these gradients: "captured" or "general".

    Captured runs the network once for the whole batch and reads each layer's gradient off its
    input and output. It needs linear and convolutional layers that hold all trainable parameters,
    and is compared with the general path once for each model and shape before it is trusted.
    """
    if not hooks.supported(model) or not x.is_floating_point():
        return "general"
    key = (tuple(x.shape[1:]), x.dtype, loss)
    verdicts = hooks.VERDICTS.setdefault(model, {})
    if key not in verdicts:
        verdicts[key] = _agree(model, x, y, loss)
    return "captured" if verdicts[key] else "general"


@unrounded()  # else rounded products would look like wrong gradients
def _agree(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> bool:
    # Two attacks, so that a network which mixes the examples of a batch is found out.
    x, y = x[:2].detach(), y[:2]
    if len(x) == 1:
        x, y = torch.cat([x, x.flip(-1)]), torch.cat([y, y])
    oracle = general(model, x, y, loss)
    try:
        found = Gradient(hooks.entries(model, x, y, loss, differentiable=False))
    except (RuntimeError, ValueError):
        return False
    error = found.sq_distance(oracle).sqrt()
    return bool((error <= 1e-3 * oracle.sq_norm().sqrt()).all())
