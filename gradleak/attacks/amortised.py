"""An amortised attack: one network, trained once, that answers a gradient with an image.

Trained to least squares on pairs (image, its noised gradient), it learns the posterior mean
E[x | g, y]. It looks at a gradient through the directions in which gradients of images differ most:
Gaussian noise has the same law in any of them, and the rest of it tells nothing of the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from gradleak.client import Client, ServerView
from gradleak.data import Images
from gradleak.defenses import GaussianNoise, NoDefense
from gradleak.gradients import Gradient
from gradleak.priors import fit, log_uniform
from gradleak.randomness import AMORTISED, generator, seeded

AT_ONCE = 100  # gradients that are held as tensors


@dataclass(frozen=True, eq=False)
class Directions:
    """Orthonormal directions in the space of gradients.

    entries: parameter name -> (K, its size). power: the mean square of an image's gradient along
    each, (K,), largest first.
    """

    entries: dict[str, Tensor] = field(repr=False)
    power: Tensor = field(repr=False)

    @classmethod
    def leading(cls, g: Gradient, rank: int) -> Directions:
        """The leading principal directions (not centred) of N gradients, at most N of them."""
        flat = {name: value.flatten(1) for name, value in g.items()}
        gram = sum((v @ v.T).double() for v in flat.values())
        values, vectors = torch.linalg.eigh(gram)
        real = int((values > 1e-6 * values[-1]).sum())
        values, vectors = (part[..., -min(rank, real) :].flip(-1) for part in (values, vectors))
        mix = (vectors / values.sqrt()).T.to(gram.device, next(iter(flat.values())).dtype)
        return cls({k: mix @ v for k, v in flat.items()}, (values / len(gram)).to(mix))

    def of(self, g: Gradient) -> Tensor:
        """The coordinates of N gradients, (N, K)."""
        return sum(g[k].flatten(1) @ directions.T for k, directions in self.entries.items())


@dataclass(frozen=True, eq=False)
class Amortised:
    """(released gradient, label, noise scale) -> image; see `Amortised.fit`.

    lowest, highest: the noise scales that it was trained on.
    """

    directions: Directions = field(repr=False)
    network: nn.Module = field(repr=False)
    classes: int
    lowest: float
    highest: float

    @classmethod
    def fit(
        cls,
        client: Client,
        images: Images,
        lowest: float,
        highest: float,
        *,
        rank: int = 512,
        steps: int = 2000,
        width: int = 1024,
        batch_size: int = 256,
        lr: float = 1e-3,
        seed: int = 0,
    ) -> Amortised:
        """Trained for a client who adds Gaussian noise of any scale between the two.

        images: whatever the adversary has. Scales are log-uniform. The directions are those of the
        gradients of the first `rank` images.
        """
        bare = replace(client, defense=NoDefense())
        device = next(client.model.parameters()).device
        with torch.no_grad():
            first = images.take(range(min(rank, len(images))))
            directions = Directions.leading(_gradient(bare, first), rank)
            parts = torch.arange(len(images)).split(AT_ONCE)
            seen = torch.cat(
                [
                    directions.of(_gradient(bare, images.take(part.tolist())))
                    for part in tqdm(parts, desc="gradients", delay=2, disable=None)
                ]
            )
        network = _network(len(directions.power), images, width, seed).to(device)
        found = cls(directions, network, images.classes, lowest, highest)
        rng = generator(AMORTISED, seed)

        def loss(network: nn.Module) -> Tensor:
            index = torch.randint(len(images), (batch_size,), generator=rng)
            scale = log_uniform(lowest, highest, batch_size, rng).to(device)
            noise = torch.randn(batch_size, seen.shape[1], generator=rng).to(device)
            z = seen[index] + scale.unsqueeze(1) * noise
            guess = replace(found, network=network)._answer(z, images.y[index].to(device), scale)
            return F.mse_loss(guess, images.x[index].to(device))

        return replace(found, network=fit(network, loss, steps, lr, "amortised"))

    @torch.no_grad()
    def attack(self, view: ServerView) -> Tensor:
        """The posterior mean of each client's image, (N, C, H, W).

        Raises ValueError for hidden labels, a defense or a scale that it was not trained on.
        """
        defense = view.client.defense
        if not isinstance(defense, GaussianNoise):
            raise ValueError(f"trained for Gaussian noise, this client has {defense}")
        if not self.lowest <= defense.scale <= self.highest:
            raise ValueError(
                f"trained for scales of {self.lowest:g} to {self.highest:g}, this client's is "
                f"{defense.scale:g}"
            )
        z = self.directions.of(view.g)
        return self._answer(z, view.labels, z.new_full((len(z),), defense.scale))

    def _answer(self, z: Tensor, y: Tensor, scale: Tensor) -> Tensor:
        scale = scale.unsqueeze(1)
        label = F.one_hot(y, self.classes).to(z)
        z = z / (self.directions.power + scale.square()).sqrt()
        return self.network(torch.cat([z, label, scale.log()], 1))


def _gradient(client: Client, images: Images) -> Gradient:
    return client.gradient(*client.placed(images.x, images.y))


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
