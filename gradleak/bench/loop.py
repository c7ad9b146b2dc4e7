"""The usual way to write an attack, one image at a time: what the engine is measured against."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from gradleak.client import ServerView
from gradleak.priors import Prior


def usual_loop(view: ServerView, belief: str, prior: Prior, x: Tensor) -> Callable[[], None]:
    """One step on the view's first client, from x (1, *shape): autograd twice, then Adam.

    belief: cosine, L2 or L1.
    """
    model, x = view.client.model, x.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.1)
    weights = list(model.parameters())
    g = [view.g[name][0] for name, _ in model.named_parameters()]

    def step() -> None:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), view.y[:1])
        found = torch.autograd.grad(loss, weights, create_graph=True)
        total = _mismatch(belief, found, g) - prior.log_prob(x).sum()
        (x.grad,) = torch.autograd.grad(total, x)
        optimizer.step()

    return step


def _mismatch(belief: str, found: tuple[Tensor, ...], g: list[Tensor]) -> Tensor:
    pairs = list(zip(found, g, strict=True))
    if belief == "cosine":
        norms = sum(a.square().sum() for a in found) * sum(b.square().sum() for b in g)
        return 1 - sum((a * b).sum() for a, b in pairs) / norms.sqrt()
    power = {"L1": 1, "L2": 2}[belief]
    return sum((a - b).abs().pow(power).sum() for a, b in pairs)
