"""An amortised attack: one network, trained once, that answers a gradient with an image.

Trained to least squares on pairs (image, its noised gradient), it learns the posterior mean
E[x | g, y]. It looks at a gradient through the directions in which gradients of images differ most:
Gaussian noise has the same law in any of them, and the rest of it tells nothing of the image.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from gradleak.attacks._learnt import Family, Learnt
from gradleak.attacks.attack import Reconstruction, answered
from gradleak.client import Client, ServerView
from gradleak.data import Images
from gradleak.defenses import GaussianNoise
from gradleak.device import ordinary
from gradleak.gradients import Gradient
from gradleak.priors import fit, log_uniform
from gradleak.randomness import AMORTISED, generator, seeded

AT_ONCE = 100  # gradients that are held as tensors


class Directions(nn.Module):
    """Orthonormal directions in the space of gradients.

    entries: parameter name -> (K, its size). power: the mean square of an image's gradient along
    each, (K,), largest first.
    """

    def __init__(self, entries: Mapping[str, Tensor], power: Tensor) -> None:
        super().__init__()
        self.names = tuple(entries)
        for place, held in enumerate(entries.values()):  # a buffer's name has no dots
            self.register_buffer(f"entry{place}", held)
        self.register_buffer("power", power)

    @classmethod
    def leading(cls, g: Gradient, rank: int) -> Directions:
        """The leading principal directions (not centred) of N gradients, at most N of them."""
        flat = {name: value.reshape(len(value), -1) for name, value in g.items()}
        gram = sum((v @ v.T).double() for v in flat.values())
        values, vectors = torch.linalg.eigh(gram)
        real = int((values > 1e-6 * values[-1]).sum())
        values, vectors = (part[..., -min(rank, real) :].flip(-1) for part in (values, vectors))
        mix = (vectors / values.sqrt()).T.to(gram.device, next(iter(flat.values())).dtype)
        return cls({k: mix @ v for k, v in flat.items()}, (values / len(gram)).to(mix))

    @property
    def entries(self) -> dict[str, Tensor]:
        """By name."""
        return {k: self.get_buffer(f"entry{place}") for place, k in enumerate(self.names)}

    def forward(self, g: Gradient) -> Tensor:
        """The coordinates of N gradients, (N, K)."""
        return sum(g[k].reshape(g.attacks, -1) @ v.T for k, v in self.entries.items())


class Answering(nn.Module):
    """What an amortised attack learns: directions, and a network of coordinates along them."""

    def __init__(self, directions: Directions, network: nn.Module, classes: int) -> None:
        super().__init__()
        self.directions, self.network, self.classes = directions, network, classes

    def forward(self, z: Tensor, y: Tensor, scale: Tensor) -> Tensor:
        """Images (N, C, H, W) of coordinates z (N, K), labels y and noise scales (N,)."""
        scale = scale.unsqueeze(1)
        label = F.one_hot(y, self.classes).to(z)
        z = z / (self.directions.power + scale.square()).sqrt()
        return self.network(torch.cat([z, label, scale.log()], 1))


@dataclass(frozen=True, eq=False, repr=False)
class Amortised(Learnt):
    """(released gradient, label, noise scale) -> image, for clients who add Gaussian noise.

    Scales of the training are log-uniform. It looks along the directions of the gradients of the
    first `rank` images.
    """

    family: Family = field(default=GaussianNoise, init=False)
    _: KW_ONLY
    rank: int = 512
    steps: int = 2000
    width: int = 1024
    batch_size: int = 256
    lr: float = 1e-3
    seed: int = 0

    def train(self) -> Answering:
        """Learn the answers to gradients that are noised anew in each step."""
        images, batch_size = self.images, self.batch_size
        directions, seen = _coordinates(self.client, images, self.rank)
        rng = generator(AMORTISED, self.seed)

        def loss(network: nn.Module) -> Tensor:
            index = torch.randint(len(images), (batch_size,), generator=rng)
            scale = log_uniform(self.lowest, self.highest, batch_size, rng).to(seen.device)
            noise = torch.randn(batch_size, seen.shape[1], dtype=torch.float32, generator=rng).to(
                seen.device
            )
            z = seen[index] + scale.unsqueeze(1) * noise
            answers = Answering(directions, network, images.classes)
            guess = answers(z, images.y[index].to(seen.device), scale)
            return F.mse_loss(guess, images.x[index].to(seen.device))

        network = _network(seen.shape[1], images, self.width, self.seed).to(seen.device)
        network = fit(network, loss, self.steps, self.lr, "amortised")
        return Answering(directions, network, images.classes)

    @ordinary
    def attack(self, view: ServerView, seed: int = 0) -> Reconstruction:
        """The posterior mean of each client's image, (N, C, H, W); nothing is random.

        Raises ValueError for hidden labels, a defense or a scale that it was not trained for.
        """
        begin, scale = time.perf_counter(), self.scale(view)
        with torch.no_grad():
            z = self.learnt.directions(view.g)
            x = self.learnt(z, view.labels, z.new_full((len(z),), scale))
        return answered(x, begin)


def _coordinates(client: Client, images: Images, rank: int) -> tuple[Directions, Tensor]:
    """The directions of the first images' gradients, and the coordinates of all (N, K)."""
    x, y = client.placed(images.x, images.y)
    with torch.no_grad():
        directions = Directions.leading(client.gradient(x[:rank], y[:rank]), rank)
        parts = zip(x.split(AT_ONCE), y.split(AT_ONCE), strict=True)
        bar = tqdm(list(parts), desc="gradients", delay=2, disable=None)
        return directions, torch.cat([directions(client.gradient(*part)) for part in bar])


def _network(inputs: int, images: Images, width: int, seed: int) -> nn.Module:
    with seeded(AMORTISED, seed, 1):
        network = nn.Sequential(
            nn.Linear(inputs + images.classes + 1, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, math.prod(images.shape)),
            nn.Unflatten(1, images.shape),
        )
    nn.init.zeros_(network[4].weight)
    network[4].bias.data = images.x.mean(0).flatten().clone()
    return network
