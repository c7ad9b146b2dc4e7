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

Given = tuple[str, models.Shape, int, int | None]
"""A network, the shape of its images, how many gradients were released, of how many images each."""


@dataclass(frozen=True)
class Case:
    """A network, an attack, how many attacks on how many released gradients, a precision.

    batch: images of a client, None for one. steps: of an attack.
    """

    network: str
    shape: models.Shape
    belief: str
    released: int
    restarts: int = 1
    batch: int | None = None
    steps: int = 50
    precision: str = "float32"

    @property
    def attacks(self) -> int:
        """N."""
        return self.released * self.restarts

    @property
    def given(self) -> Given:
        """What was released, which cases share."""
        return self.network, self.shape, self.released, self.batch

    def adversary(self, client: Client, steps: int | None = None) -> Adversary:
        """The attack, of its own number of steps or another."""
        optimizer = Adam(steps=self.steps if steps is None else steps)
        options = {"optimizer": optimizer, "restarts": self.restarts}
        return BELIEFS[self.belief](client, PRIOR, **options)


CNN_GREY, CNN_COLOUR = ("cnn", (1, 28, 28)), ("cnn", (3, 32, 32))
CONVBIG = ("convbig", (3, 32, 32))
CONVNET = ("convnet", (3, 32, 32))
CASES = (
    *(Case(*CNN_COLOUR, "cosine", n, steps=max(50, 1000 // n)) for n in (1, 8, 16, 64)),
    Case(*CNN_COLOUR, "cosine", 64, restarts=4),
    Case(*CNN_COLOUR, "L2", 64),
    Case(*CNN_COLOUR, "L1", 64),
    Case(*CNN_COLOUR, "cosine", 4, batch=16),
    Case("cnn", (3, 128, 128), "cosine", 4),
    *(Case(*CNN_GREY, "cosine", n, steps=max(50, 1000 // n)) for n in (1, 64)),
    *(Case(*CNN_GREY, belief, 64) for belief in ("L2", "L1")),
    *(Case(*CONVBIG, "cosine", n, steps=max(50, 200 // n)) for n in (1, 8, 32)),
    Case(*CONVBIG, "cosine", 1, restarts=64),
    Case(*CONVBIG, "L2", 32),
    *(Case(*CONVNET, "cosine", n, steps=30) for n in (1, 4)),
)
BUSY = {
    "cpu": (Case(*CNN_COLOUR, "cosine", 64), Case(*CONVBIG, "cosine", 32)),
    "cuda": (Case(*CNN_COLOUR, "cosine", 64, restarts=64), Case(*CONVBIG, "cosine", 256),
             Case(*CONVBIG, "cosine", 1, restarts=2048)),
}  # fmt: skip


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
    network, shape, count, batch = given
    model = getattr(models, network)(shape, 10).to(device)
    examples = () if batch is None else (batch,)
    x = torch.rand((count, *examples, *shape), dtype=torch.float32, generator=generator(START, 0))
    y = torch.arange(x.shape[: 1 + len(examples)].numel()).view(count, *examples) % 10
    client = Client(model, GaussianNoise(0.01), batch_size=batch)
    parts = [
        client.release(x[some], y[some], key=some.tolist())
        for some in torch.arange(count).split(64)
    ]
    g = parts[0].g.map(lambda *v: torch.cat(v), *(p.g for p in parts[1:]))
    y = torch.cat([p.y for p in parts])
    return replace(parts[0], g=g, y=y, key=tuple(range(count)))


def start(view: ServerView) -> Tensor:
    """Random images, one for each released gradient."""
    return torch.rand((len(view), *view.shape)).to(view.y.device)
