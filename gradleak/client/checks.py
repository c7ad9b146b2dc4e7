"""What clients, and views of them, are asked for: looked at before anything is computed from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from gradleak import gradients, look
from gradleak.device import usable
from gradleak.gradients import HALF, Gradient, reading
from gradleak.randomness import START, check_seed, generator
from gradleak.scales import check_kind, is_plain, refuse

if TYPE_CHECKING:
    from gradleak.client.client import Client


def check_weights(model: nn.Module) -> None:
    """Raise ValueError unless gradients can be told of the model, and its weights are finite."""
    gradients.network.check(model)
    gradients.network.check_finite(model)


def check_data(client: Client, x: Tensor, y: Tensor) -> None:
    """Raise ValueError unless x and y are of N clients of this batch size, finite, in range."""
    batch = () if client.batch_size is None else (client.batch_size,)
    if (x.shape[1 : 1 + len(batch)], y.shape[1 : 1 + len(batch)]) != (batch, batch):
        raise ValueError(
            f"the client's batch size is {client.batch_size}, so x and y start with "
            f"(N, {client.batch_size}); got {tuple(x.shape)} and {tuple(y.shape)}. For one "
            f"client that holds {len(x)} examples: batch_size={len(x)}, x[None], y[None]; for "
            f"{len(x)} clients of one example each: batch_size=None"
        )
    if x.ndim < 2 + len(batch) or not (y.ndim and x.numel() and y.numel()):
        many = ", ".join(map(str, ("N", *batch)))
        raise ValueError(
            f"x is ({many}, *shape) and y ({many},), of at least one client; got "
            f"{tuple(x.shape)} and {tuple(y.shape)}. Of one example: x[None], torch.tensor([y])"
        )
    if len(x) != len(y):
        raise ValueError(f"{len(x)} inputs and {len(y)} labels; give one for each client")
    if not x.isfinite().all():
        raise ValueError("x holds numbers that are not finite; replace them or leave rows out")
    if x.ndim == 4 + len(batch) and (x.min() < 0 or x.max() > 1):
        raise ValueError(
            f"images must lie in [0, 1], got [{x.min():.3g}, {x.max():.3g}]; normalisation "
            "belongs into the model (gradleak.models.Normalize)"
        )


@torch.no_grad()
def check_labels(client: Client, x: Tensor, y: Tensor) -> None:
    """Raise ValueError unless the model takes the first of x, and its loss every one of y."""
    one = client.batch_size is None
    few = as_seen(client, x[:1] if one else x[0])

    def at_every_label(output: Tensor, y: Tensor) -> Tensor:
        for label in y.unique(dim=0):
            loss = client.loss(output, label[None] if one else label)
            finite = isinstance(output, Tensor) and output.isfinite().all()
            if finite and isinstance(loss, Tensor) and loss.isnan().any():
                raise ValueError(f"the loss of label {label.tolist()} is not a number")
        return loss

    try:
        value = gradients.plain.loss_at(client.model, {}, few, y, at_every_label)
    except Exception as error:
        of = "one example" if one else f"{client.batch_size} examples"
        raise ValueError(
            f"the model and its loss do not take x {tuple(few.shape)} with y {_summary(y)} for "
            f"each of {len(y)} clients of {of} (see batch_size; classes are whole numbers from "
            f"0, y.long()): {error}"
        ) from error
    if not value.is_floating_point():
        raise ValueError(f"loss must return a scalar tensor of floats, got {value.dtype}")


@torch.no_grad()
def check_dependence(client: Client, x: Tensor, y: Tensor) -> None:
    """Raise ValueError where the gradient is the same whatever x is."""
    other = 0.2 * torch.rand(x[:1].shape, dtype=torch.float32, generator=generator(START)).to(x)
    few = torch.cat([x[:2], 0.75 * x[:1].flip(-1) + other])
    g = client.gradient(few, y[:1].expand(len(few), *y.shape[1:]))
    apart = g.rows(slice(1, None)).sq_distance(first := g.rows(slice(1)))
    if (apart <= 1e-14 * first.sq_norm()).all():
        raise ValueError(
            "the gradient is the same whatever x is, so nothing of x is in it: the model "
            "ignores x, or its first layer is dead (no unit active for any x); check its "
            "weights and what its forward does with x"
        )


def check_defense(client: Client, x: Tensor, y: Tensor) -> None:
    """Look at a defense of one's own, once: see `gradleak.look`."""
    if look.due(client.defense, x.shape[1:]):
        x, y = look.pair(x), look.pair(y)
        g = client.gradient(x, y)
        unlike = g.map(lambda v: look.unlike(v.detach()))
        look.at_defense(
            client.defense, lambda rows: client.defense_at(x[rows])(unlike.rows(rows)), unlike
        )
        look.done(client.defense, x.shape[1:])


def check_gradient(what: str, g: Gradient) -> None:
    """Raise ValueError where one client's is zero or not finite. what: its name in the error."""
    norms = g.sq_norm()
    for problem, bad in (("not finite", ~norms.isfinite()), ("zero", norms == 0)):
        if bad.any():
            which = bad.nonzero().flatten().tolist()
            raise ValueError(
                f"{what} of client {', '.join(map(str, which[:5]))} is {problem}: nothing can be "
                "matched; leave such clients out, or check the model's weights, its activations "
                "and the loss"
            )


def keys(key: object, clients: int) -> tuple[int, ...]:
    """What tells N clients apart, (N,), 0 to N-1 for None; ValueError for what does not."""
    key = range(clients) if key is None else key
    check_kind("key", key, (Sequence, Tensor, np.ndarray), "one number for each client")
    if not isinstance(key, Sequence) and key.ndim != 1:
        refuse("key", f"{clients} numbers, one for each client", key)
    key = check_seed("key", *key)
    if len(key) != clients:
        raise ValueError(f"{len(key)} keys for {clients} clients; give one for each")
    if len(set(key)) != clients:
        raise ValueError("keys must differ: clients with equal keys would share their noise")
    return key


def labels(y: object, clients: int, batch_size: int | None) -> Tensor:
    """Labels of N clients, (N, ...) or (N, B, ...); those of one client may come alone.

    Whole numbers become int64. Raises ValueError for what is no number, and for too few axes.
    """
    try:
        reading.check_unmasked(y)
        y = y.detach() if isinstance(y, Tensor) else torch.tensor(np.array(y))
        if y.is_complex() or not is_plain(y) or not y.numel():
            raise ValueError(f"got {y.dtype} of shape {tuple(y.shape)}")
        y = y if y.is_floating_point() else y.long()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"labels are numbers, None where they are hidden: {error}") from error
    size = [] if batch_size is None else [batch_size]
    alone = [*y.shape[: len(size)]] == size and [*y.shape[: 1 + len(size)]] != [1, *size]
    if clients == 1 and alone and (y.ndim == len(size) or y.is_floating_point()):
        y = y.unsqueeze(0)
    if [*y.shape[: 1 + len(size)]] != [clients, *size]:
        raise ValueError(
            f"labels of {clients} clients begin with {(clients, *size)}, got {tuple(y.shape)}"
        )
    return y


def tensor(name: str, value: object) -> Tensor:
    """A dense tensor of real numbers of a tensor, array or list; ValueError where none can be."""
    try:
        # A copy of what is no tensor: an array may be read-only, or run backwards.
        reading.check_unmasked(value)
        tensor = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{name} is a {type(value).__name__} of which no tensor can be made: {error}; give a "
            "tensor or an array of numbers"
        ) from error
    if not is_plain(tensor) or tensor.is_complex():
        raise ValueError(
            f"{name} is {tensor.layout} of {tensor.dtype} on {tensor.device}; give a dense tensor "
            "of real numbers: .to_dense(), .dequantize(), .float(), torch.view_as_real(...)"
        )
    return usable(tensor)


def some(client: Client, shape: Sequence[int]) -> Tensor:
    """Some x of a shape, where the clients' own is not at hand."""
    return torch.rand(*shape, dtype=torch.float32, generator=generator(START)).to(
        client.placed([0.5], 0)[0]
    )


def as_seen(client: Client, x: Tensor) -> Tensor:
    """x in the precision of a network in half precision; around it all is in float32."""
    dtype = gradients.network.first_trainable(client.model).dtype
    return x.to(dtype) if dtype in HALF else x


def _summary(y: Tensor) -> str:
    shape = f"{tuple(y.shape[1:])} of {y.dtype}"
    return f"{shape} from {y.min().item():g} to {y.max().item():g}"
