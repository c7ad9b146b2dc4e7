"""Which of the ways to compute gradients may be taken: the first that agrees with autograd."""

import warnings
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from gradleak.device import out_of_memory, unrounded
from gradleak.gradients import network, plain
from gradleak.gradients.container import Entry, Gradient
from gradleak.gradients.hooks import Loss

Way = Callable[[nn.Module, Tensor, Tensor, Loss, bool], Mapping[str, Entry]]
"""(model, x, y, loss, differentiable) -> parameter name -> gradient of each attack."""

# Of the kernels for attention it alone has a second derivative.
attention = sdpa_kernel(SDPBackend.MATH)


class LoopWarning(UserWarning):
    """Gradients are right, and computed for one attack after the other, which takes longer."""


@attention
@unrounded()  # else rounded products would look like wrong gradients
def first_that_agrees(
    ways: Mapping[str, Way], model: nn.Module, x: Tensor, y: Tensor, loss: Loss, slopes: bool
) -> str | None:
    """The name of the first way whose gradients of two attacks, and slopes in x, are autograd's.

    The last way is autograd itself, taken with a `LoopWarning`; None where its gradients are not
    finite, so that nothing can be compared. Raises ValueError where autograd cannot compute them,
    and where they depend on more than x and y.
    """
    *faster, last = ways
    x, y = _two(model, x.detach(), y, loss)
    of = partial(_found, model=model, x=x, y=y, loss=loss, slopes=slopes)
    expected = _repeated(lambda: of(ways[last]), type(model).__name__, x.device)
    if not all(rows.isfinite().all() for rows in expected):
        return None
    for name in faster:
        try:
            if name == "captured":
                _check_attacks_share_a_run(model, x)
            if _close(of(ways[name]), expected, most=1e-3, roundings=10):
                return name
            why = "what is faster gives other values than autograd"
        except Exception as error:
            if out_of_memory(error):
                raise
            why = str(error).strip().partition("\n")[0]
    warnings.warn(
        f"gradients of {type(model).__name__} and its loss are computed for one attack after the "
        f"other, so N attacks take N times as long as one. The reason: {why}",
        LoopWarning,
        stacklevel=2,
    )
    return last


def _two(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """Two attacks, which differ also in scale: a network that mixes examples is found out."""
    other, label = x[-1:], y[-1:]
    if x.is_floating_point():
        other = 0.75 * other.flip(-1)
        try:
            plain.entries(model, other, label, loss, False)
        except ValueError:  # an x that the network does not take; what was given tells more
            other = x[-1:]
    return torch.cat([x[:1], other]), torch.cat([y[:1], label])


def _found(
    way: Way, model: nn.Module, x: Tensor, y: Tensor, loss: Loss, slopes: bool
) -> list[Tensor]:
    """Gradients (N, P), and on demand the slope in x of one combination of them, (N, X)."""
    x, y = x.clone().requires_grad_(slopes), y.clone()
    g = Gradient(way(model, x, y, loss, slopes))
    if y._version:
        raise RuntimeError("the loss writes into its labels")
    found = [torch.cat([v.detach().reshape(len(v), -1) for v in g.values()], 1)]
    if slopes:
        found.append(_slope(g, x).flatten(1))
    return found


def _slope(g: Gradient, x: Tensor) -> Tensor:
    # Any direction but the gradient's own, whose length may hardly depend on x.
    waves = {k: torch.arange(v[0].numel()).cos().to(v).view_as(v[:1]) for k, v in g.items()}
    try:
        along = g.moments(Gradient(waves))[0].sum()
        return torch.autograd.grad(along, x, materialize_grads=True)[0]
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        raise ValueError(
            f"an attack needs the slope of the gradient in x, a second derivative: {error}\n"
            "Replace that operation by one that PyTorch differentiates twice"
        ) from error


def _repeated(run: Callable[[], list[Tensor]], name: str, device: torch.device) -> list[Tensor]:
    """What it gives, if it gives that again and no generator was drawn from."""
    before = network.random_states(device)
    found = run()
    drawn = network.random_states(device) != before
    again = [rows.nan_to_num() for rows in run()]
    if drawn or not _close(again, [rows.nan_to_num() for rows in found], 0.0, roundings=100):
        raise ValueError(
            f"{name} or its loss is random even in eval mode, so a gradient depends on more than "
            "x and y; call model.eval() first, give F.dropout training=self.training, and draw "
            "no numbers in a forward"
        )
    return found


def _close(found: list[Tensor], expected: list[Tensor], most: float, roundings: float) -> bool:
    """Whether rows differ by at most this part of their norm, or this many roundings."""
    pairs = list(zip(found, expected, strict=True))
    part = max(most, roundings * torch.finfo(expected[0].dtype).eps)
    return all(bool(((a - b).norm(dim=1) <= part * b.norm(dim=1)).all()) for a, b in pairs)


def _check_attacks_share_a_run(model: nn.Module, x: Tensor) -> None:
    """RuntimeError if a forward decides by what is in x, or writes into its buffers.

    Captured gradients come from one run for all attacks, in which such a decision would be made
    for all of them at once, and two attacks that are compared may happen to decide alike.
    """
    held = {k: p.detach() for k, p in model.named_parameters()}
    buffers = {k: b.detach().clone() for k, b in model.named_buffers()}

    def unchanged(module: nn.Module, *_: object) -> None:
        if any(b is not buffers[k] or b._version for k, b in module.named_buffers()):
            raise RuntimeError("the forward writes into a buffer")

    def run(a: Tensor) -> Tensor:
        network.call(model, {**held, **buffers}, a.clone())
        return a

    with network.left_as_found(model), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")
        handle = model.register_forward_hook(unchanged)
        try:
            vmap(run)(x)
        finally:
            handle.remove()
