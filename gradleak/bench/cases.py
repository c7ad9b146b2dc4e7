"""What `gradleak bench` measures: networks, attacks, and how many of them."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradleak import models
from gradleak.attacks import Adam, Adversary, dlg, inverting_gradients, l1
from gradleak.client import Client, ServerView
from gradleak.defenses import GaussianNoise
from gradleak.priors import TotalVariation
from gradleak.randomness import START, generator

PRIOR = TotalVariation(1e-3)
BELIEFS = {"cosine": inverting_gradients, "L2": dlg, "L1": l1}

Given = tuple[str, models.Shape, int]
"""A network, the shape of its images, and how many gradients were released."""


@dataclass(frozen=True)
class Case:
    """A network, an attack, how many attacks on how many released gradients, a precision."""

    network: str
    shape: models.Shape
    belief: str
    released: int
    restarts: int
    precision: str = "float32"

    @property
    def attacks(self) -> int:
        """N."""
        return self.released * self.restarts

    @property
    def given(self) -> Given:
        """What was released, which cases share."""
        return self.network, self.shape, self.released

    def adversary(self, client: Client, steps: int) -> Adversary:
        """The attack, of so many steps."""
        options = {"optimizer": Adam(steps=steps), "restarts": self.restarts}
        return BELIEFS[self.belief](client, PRIOR, **options)


CNN_GREY, CNN_COLOUR = ("cnn", (1, 28, 28)), ("cnn", (3, 32, 32))
CONVBIG = ("convbig", (3, 32, 32))
CASES = (
    *(Case(*CNN_COLOUR, "cosine", n, 1) for n in (1, 4, 16, 64)),
    *(Case(*CNN_COLOUR, "cosine", 64, restarts) for restarts in (4, 16, 64)),
    Case(*CNN_COLOUR, "L2", 64, 1),
    Case(*CNN_COLOUR, "L1", 64, 1),
    *(Case(*CNN_GREY, belief, 64, 1) for belief in BELIEFS),
    *(Case(*CONVBIG, "cosine", n, 1) for n in (1, 8, 32)),
    Case(*CONVBIG, "cosine", 1, 64),
    Case(*CONVBIG, "L2", 32, 1),
)
BUSY = {
    "cpu": (Case(*CNN_COLOUR, "cosine", 64, 1), Case(*CONVBIG, "cosine", 32, 1)),
    "cuda": (Case(*CNN_COLOUR, "cosine", 64, 64), Case(*CONVBIG, "cosine", 256, 1),
             Case(*CONVBIG, "cosine", 1, 2048)),
}  # fmt: skip
STEPS = {"cpu": 3, "cuda": 30}  # of a measurement


def busy(device: torch.device) -> tuple[Case, ...]:
    """Cases that keep the device busy."""
    return BUSY.get(device.type, BUSY["cpu"])


def every(device: torch.device) -> list[Case]:
    """What is measured there: each of its precisions in the cases that keep it busy."""
    held = busy(device)
    rounded = ("tf32", "bfloat16") if device.type == "cuda" else ("bfloat16",)
    more = [case for case in held if case not in CASES]
    return [*CASES, *more, *(replace(c, precision=p) for c in held for p in rounded)]


def released(given: Given, device: torch.device) -> ServerView:
    """What clients with an untrained network and random images released."""
    network, shape, count = given
    model = getattr(models, network)(shape, 10).to(device)
    x = torch.rand((count, *shape), generator=generator(START, 0))
    client = Client(model, GaussianNoise(0.01))
    parts = [
        client.release(x[some], some % 10, key=some.tolist())
        for some in torch.arange(count).split(64)
    ]
    g = parts[0].g.map(lambda *v: torch.cat(v), *(p.g for p in parts[1:]))
    y = torch.cat([p.y for p in parts])
    return replace(parts[0], g=g, y=y, key=tuple(range(count)))


def start(view: ServerView) -> Tensor:
    """Random images, one for each released gradient."""
    return torch.rand((len(view), *view.shape)).to(view.y.device)
