"""The usual way to write an attack, one client at a time: what the engine is measured against."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from gradleak.attacks import Adam
from gradleak.client import ServerView
from gradleak.priors import Prior


def usual_loop(
    view: ServerView, belief: str, prior: Prior, x: Tensor, adam: Adam
) -> tuple[Tensor, Callable[[int], None]]:
    """The attack on the view's first client from x (1, *shape): where it is, and its next step.

    A step, counted from 0, is autograd twice, then Adam. belief: cosine, L2 or L1.
    """
    model, x = view.client.model, x.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], eps=1e-12)
    weights = list(model.parameters())
    g = [view.g[name][0] for name, _ in model.named_parameters()]
    of_batch = view.client.batch_size is not None
    y = view.y[0] if of_batch else view.y[:1]

    def step(count: int) -> None:
        optimizer.param_groups[0]["lr"] = float(adam.rate(count))
        loss = F.cross_entropy(model(x[0] if of_batch else x), y)
        found = torch.autograd.grad(loss, weights, create_graph=True)
        total = _mismatch(belief, found, g) - prior.log_prob(x).sum()
        (x.grad,) = torch.autograd.grad(total, x)
        if adam.signed:
            x.grad.sign_()
        optimizer.step()
        with torch.no_grad():
            x.copy_(prior.project(x))

    return x, step


def _mismatch(belief: str, found: tuple[Tensor, ...], g: list[Tensor]) -> Tensor:
    pairs = list(zip(found, g, strict=True))
    if belief == "cosine":
        norms = sum(a.square().sum() for a in found) * sum(b.square().sum() for b in g)
        return 1 - sum((a * b).sum() for a, b in pairs) / norms.sqrt()
    power = {"L1": 1, "L2": 2}[belief]
    return sum((a - b).abs().pow(power).sum() for a, b in pairs)
