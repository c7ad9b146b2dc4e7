"""Gradients by autograd alone, one attack after the other: the definition, which anything runs."""

import torch
from torch import Tensor, nn

from gradleak.device import out_of_memory
from gradleak.gradients import network
from gradleak.gradients.hooks import Loss

HALVED = (
    "\nAttackers compute with a copy of the network in float32: let the loss and the "
    "network's forward cast what they hold to what they are given, such as weight.to(z)"
)


def entries(
    model: nn.Module, x: Tensor, y: Tensor, loss: Loss, differentiable: bool
) -> dict[str, Tensor]:
    """Parameter name -> gradient of N attacks, (N, ...); x (N, B, *shape), y (N, B).

    A parameter that does not enter the loss has the gradient zero. ValueError, with PyTorch's own
    error as its cause, where the model or its loss cannot be run or differentiated.
    """
    try:
        each = [_gradients(model, a, b, loss, differentiable) for a, b in zip(x, y, strict=True)]
    except Exception as error:
        if out_of_memory(error):
            raise
        raise ValueError(
            f"{type(model).__name__} and its loss cannot be differentiated for one attack, "
            f"x {tuple(x.shape[1:])} and y {tuple(y.shape[1:])}: {type(error).__name__}: {error}\n"
            "What has to run: torch.autograd.grad(loss(model(x), y), model.parameters())"
            + (HALVED if "Half" in str(error) or "BFloat16" in str(error) else "")
        ) from error
    return {k: torch.stack([g[k] for g in each]) for k in each[0]}


def loss_at(
    model: nn.Module, parameters: dict[str, Tensor], x: Tensor, y: Tensor, loss: Loss
) -> Tensor:
    """The loss, a scalar, of one attack's x (B, *shape) and y (B,) with these parameters.

    Neither x, y nor the model's buffers change, whatever the model and the loss write into them.
    """
    buffers = {k: b.detach().clone() for k, b in model.named_buffers()}
    total = loss(network.call(model, {**buffers, **parameters}, x.clone()), y.clone())
    if not isinstance(total, Tensor) or total.ndim:
        got = f"shape {tuple(total.shape)}" if isinstance(total, Tensor) else type(total).__name__
        raise TypeError(
            "a loss gives one number, a tensor without axes, which is the mean over the examples "
            f'(reduction="mean", or .mean() at its end); this one gave {got}'
        )
    return total


def slope(total: Tensor, x: Tensor) -> Tensor:
    """The slope of a scalar in x; zero where it does not depend on x in a way that has one."""
    if not total.requires_grad:
        return torch.zeros_like(x)
    return torch.autograd.grad(total, x, materialize_grads=True)[0]


@torch.enable_grad()
def _gradients(
    model: nn.Module, x: Tensor, y: Tensor, loss: Loss, differentiable: bool
) -> dict[str, Tensor]:
    x = x if differentiable else x.detach().requires_grad_(x.is_floating_point())
    # The model's own parameters, as a loss may use them too: a penalty on weights.
    held = {k: p if p.requires_grad else p.detach() for k, p in model.named_parameters()}
    trainable = {k: p for k, p in held.items() if p.requires_grad}
    # With x among the ends, backward enters layers that hide their weights from autograd.grad
    # (reentrant checkpoints) and then say so, where it would find no gradient and take it for zero.
    ends = [*trainable.values(), *([x] if x.requires_grad else [])]
    with network.left_as_found(model):
        total = loss_at(model, held, x, y, loss)
        found = torch.autograd.grad(
            total, ends, create_graph=differentiable, materialize_grads=True
        )
    pairs = zip(trainable, found[: len(trainable)], strict=True)
    return {k: g.to_dense() if g.is_sparse else g for k, g in pairs}
