"""Gradients that were not made here, checked against the network that they are believed to be of.

What is wrong is refused by name, with its cure, before anything is attacked.
"""

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from gradleak.gradients.container import Gradient
from gradleak.gradients.reading import Given, read
from gradleak.gradients.turns import alone
from gradleak.scales import check_number

FEW = 3  # numbers, among which two vectors may point the same way by chance
ALIKE, HELD = 0.999, 0.5  # a gradient's cosine with the weights; the share of them after a step

Tensors = Mapping[str, Tensor]


@alone
def gradient(model: nn.Module, given: Given, needed: Collection[str]) -> Gradient:
    """The gradients of N clients, as the model's parameters are in device and precision.

    given: see `reading.read`; one client's has the parameters' shapes, that of N clients a leading
    axis N. needed: names of parameters that must be there. Raises ValueError for what is missing,
    unknown, of another shape or layout, not finite, or zero for a whole client.
    """
    entries = _stacked("gradient", model, read("gradient", given, model), needed)
    if (_of_weights(model, entries)[0] > ALIKE).any():
        raise ValueError("these are the model's weights and not their gradient: take p.grad")
    return _checked("gradient", model, entries)


@alone
def update(
    model: nn.Module, before: Given, after: Given, lr: float, needed: Collection[str]
) -> Gradient:
    """(before - after) / lr: the gradient that one step of plain SGD from the model took.

    before, after: weights, as `given` above. Raises ValueError as `gradient` does, and where the
    weights before are not the model's, those after are far from them, nothing changed, or lr is not
    positive and finite.
    """
    lr = lr.item() if isinstance(lr, Tensor) and lr.numel() == 1 else lr
    check_number("lr", lr, "(0, inf)", "it is the learning rate of the client's step")
    sides = {}
    for what, weights in (("weights before", before), ("weights after", after)):
        sides[what] = _stacked(what, model, read(what, weights, model), needed)
    start, end = sides.values()
    _check_start(model, start, end)
    _check_end(model, end)
    beside = zip(end, _beside(model, end), strict=True)
    change = {k: held.cpu().double() - v.cpu().double() for k, (held, v) in beside}
    _check_rounding(end, change)
    steps = {k: v / lr for k, v in change.items()}
    return _checked("difference of weights over lr", model, steps)


@alone
def like(model: nn.Module) -> Gradient:
    """Something of the gradient's shapes: the trainable parameters themselves, of one client."""
    parameters = model.named_parameters()
    return Gradient({k: p.detach().unsqueeze(0) for k, p in parameters if p.requires_grad})


@alone
def check_fits(model: nn.Module, g: Gradient) -> None:
    """Raise ValueError where g cannot be of the model as it stands, by name, shape or precision."""
    held = like(model)
    for name, v in g.items():
        own = held.get(name)
        if own is None or (own.shape[1:], own.dtype) != (v.shape[1:], v.dtype):
            raise ValueError(
                f"the view's gradient of '{name}' is not one of the model as it stands, which was "
                "frozen, cast or changed since: undo that, or make the view anew"
            )


def _stacked(
    what: str, model: nn.Module, values: Tensors, needed: Collection[str]
) -> dict[str, Tensor]:
    """Each with its leading axis, of the right shape, in the model's order."""
    held = dict(model.named_parameters())
    if missing := [k for k in needed if k not in values]:
        raise ValueError(
            f"the {what} lacks {', '.join(missing)}; fill it in, or, if it was not sent, let the "
            "client be one that does not send it, and the adversary one that does not look for it: "
            f"Client(model, gradleak.Ignore({tuple(missing)}, then=...)), with what the client "
            "does to the rest, or the adversary believes of it (gradleak.Direction()), for then"
        )
    axes = {k: v.ndim - held[k].ndim for k, v in values.items()}
    if set(axes.values()) == {0}:
        values = {k: v.unsqueeze(0) for k, v in values.items()}
    elif set(axes.values()) != {1}:
        usual = 1 if list(axes.values()).count(1) > len(axes) / 2 else 0
        odd = next(k for k in values if axes[k] != usual)
        raise ValueError(
            f"the {what} has '{odd}' of shape {tuple(values[odd].shape)}, the model "
            f"{tuple(held[odd].shape)}; give one client's in the parameters' shapes, or all with a "
            "leading axis of N clients (torch.stack over clients, unsqueeze(0) for one)"
        )
    _check_shapes(what, values, held, leading=1 in axes.values())
    return {k: values[k] for k in held if k in values}


def _check_shapes(what: str, values: Tensors, held: Tensors, leading: bool) -> None:
    for name, v in values.items():
        shape, own = tuple(v.shape[1:]), tuple(held[name].shape)
        if shape != own:
            raise ValueError(
                f"the {what} has '{name}' of shape {shape}, the model {own}"
                f"{_layout(shape, own, leading)}"
            )
    counts = {k: len(v) for k, v in values.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise ValueError(
            f"the leading axis of the {what} is that of clients, one and the same number, at least "
            f"1, for each parameter, got {counts}"
        )


def _layout(shape: Sequence[int], own: Sequence[int], leading: bool) -> str:
    """Which layout of another framework this is, and the cure."""
    space = list(range(2, len(own)))
    letters = "DHW"[3 - len(space) :] if len(space) < 4 else ""
    last = len(own) - 1
    known = {
        f"{letters}IO": [last, last - 1, *range(last - 1)],
        f"O{letters}I": [0, last, *range(1, last)],
        f"I{letters}O": [last, 0, *range(1, last)],
        f"{letters}OI": [last - 1, last, *range(last - 1)],
        f"IO{letters}": [1, 0, *space],
    }
    for name, order in known.items():
        if len(own) > 1 and [shape[axis] for axis in order] == list(own):
            axes = [0, *(axis + 1 for axis in order)] if leading else order
            return (
                f": it looks like {name}, another framework's layout, where PyTorch has "
                f"OI{letters}; turn this and its like with .permute{tuple(axes)}"
            )
    hint = ", with as many numbers: reshape it" if math.prod(shape) == math.prod(own) else ""
    return f"{hint}; is it of this network, and of this version of it?"


def _check_start(model: nn.Module, start: Tensors, end: Tensors) -> None:
    held = {k: p.detach() for k, p in model.named_parameters()}
    for name, v in start.items():
        apart = (v.to(held[name]) - held[name]).abs().max()
        if apart != 0:  # or not a number
            swapped = all(torch.equal(v.to(held[k]), held[k].expand_as(v)) for k, v in end.items())
            own = "the model holds the weights after: " if swapped else ""
            raise ValueError(
                f"the weights before are not those of the client's model: '{name}' differs by "
                f"{apart:.2g}; {own}the gradient was taken where the client began, so "
                "model.load_state_dict(before) first" + (", or swap the two" if swapped else "")
            )


def _check_end(model: nn.Module, end: Tensors) -> None:
    """Weights after a step still hold those before; a change of them, or a gradient, hardly."""
    _, share = _of_weights(model, end)
    if (lost := share < HELD).any():
        raise ValueError(
            f"the weights after, of client {_which(lost)}, hold nearly nothing of those before, as "
            "a change of weights or a gradient would: give before + change, or `view` the gradient "
            "(it takes -change / lr, and of so large a step (before - after) / lr)"
        )


def _of_weights(model: nn.Module, entries: Tensors) -> Tensor:
    """Each client's cosine with the model's weights, and share of them, (2, N).

    Not a number of weights that are zero, or too few to tell.
    """
    pairs = [(w.flatten(), v.to(w).reshape(len(v), -1)) for w, v in _beside(model, entries)]
    each = [torch.stack([v @ w, v.square().sum(1), (w @ w).expand(len(v))]) for w, v in pairs]
    inner, square, own = sum(each)
    own = own if sum(len(w) for w, _ in pairs) > FEW else own * torch.nan
    return torch.stack([inner / square.sqrt() / own.sqrt(), inner / own])


def _check_rounding(end: Tensors, change: Tensors) -> None:
    """Weights near w have a standard deviation of rounding of about eps |w| / 5."""
    kinds = {v.dtype for v in end.values() if v.is_floating_point()}
    error = [v.double() * torch.finfo(v.dtype).eps / 5 for v in end.values() if v.dtype in kinds]
    lost, left = (sum(float(v.square().sum()) for v in part) for part in (error, change.values()))
    if 0 < left < 4 * lost:
        raise ValueError(
            f"the weights after, in {', '.join(sorted(map(str, kinds)))}, changed by hardly more "
            "than their rounding, so their difference is mostly that; ask for them in more "
            "precision, or after a larger lr"
        )


def _beside(model: nn.Module, entries: Tensors) -> list[tuple[Tensor, Tensor]]:
    """Each of the model's weights with the entry of its name."""
    held = dict(model.named_parameters())
    return [(held[k].detach(), v) for k, v in entries.items()]


def _checked(what: str, model: nn.Module, entries: Tensors) -> Gradient:
    """Where the model is, in its precision, without what is frozen; refused where it is unfit."""
    held, g = dict(model.named_parameters()), {}
    for name, v in entries.items():
        p, v = held[name], v.to(held[name].detach())
        if not v.isfinite().all():
            raise ValueError(
                f"the {what} is not finite in '{name}' of client {_which(~v.isfinite())} (in "
                f"{p.dtype}); look for an overflow in half precision, or a client that diverged"
            )
        if p.requires_grad:
            g[name] = v
        elif v.any():
            raise ValueError(
                f"the {what} is not zero in '{name}', which the client's model holds fixed "
                "(requires_grad is False); make it trainable there, or leave the entry out"
            )
    found = Gradient(g)
    square = found.sq_norm()
    if not square.isfinite().all():
        raise ValueError(
            f"the {what} of client {_which(~square.isfinite())} is so large that its square "
            "overflows; check the learning rate or the loss's scale"
        )
    if (square == 0).any():
        raise ValueError(
            f"the {what} of client {_which(square == 0)} is zero, so it tells nothing; was it read "
            "after zero_grad(), or before the step?"
        )
    return found


def _which(bad: Tensor) -> str:
    clients = bad.reshape(len(bad), -1).any(1).nonzero().flatten().tolist()
    return ", ".join(map(str, clients[:5]))
