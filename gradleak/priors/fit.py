"""How networks that serve an attack are trained: denoisers, and attacks that are learnt."""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from tqdm import tqdm

WARM = 100  # steps until the learning rate is full
DECAY = 0.995  # of the running mean of the weights


def fit(
    model: nn.Module, loss: Callable[[nn.Module], Tensor], steps: int, lr: float, what: str
) -> nn.Module:
    """Descend loss(model) with Adam; return a running mean of the weights, frozen.

    loss: of a batch that it draws anew at each call. The learning rate rises over the first steps
    and falls along a cosine. what: name of the progress bar. The model itself is trained, too.
    """
    mean = copy.deepcopy(model)
    update = torch.optim.Adam(model.parameters(), lr=lr)
    for step in tqdm(range(steps), desc=what, delay=2, disable=None):
        for group in update.param_groups:
            warm, cosine = min(1, (step + 1) / WARM), 0.5 * (1 + math.cos(math.pi * step / steps))
            group["lr"] = lr * warm * cosine
        now = loss(model)
        update.zero_grad()
        now.backward()
        update.step()
        with torch.no_grad():
            keep = min(DECAY, (1 + step) / (10 + step))
            for average, new in zip(mean.parameters(), model.parameters(), strict=True):
                average.lerp_(new, 1 - keep)
    return mean.eval().requires_grad_(False)


def log_uniform(lowest: float, highest: float, count: int, rng: torch.Generator) -> Tensor:
    """`count` levels between the two, each factor alike."""
    return lowest * (math.log(highest / lowest) * torch.rand(count, generator=rng)).exp()
