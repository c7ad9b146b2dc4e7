"""PRECODE: a variational bottleneck that makes gradients random (Scheliga et al. 2022).

A network with a bottleneck sees an image and a standard normal latent, joined into one vector, so
that everything else here treats it as any network: the client draws the latent, an attack finds
both or believes something about it.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradleak.defenses.noise import Transform
from gradleak.models import Shape, check_sizes, constructor, image, sequential
from gradleak.randomness import LATENT, MODEL, generator
from gradleak.scales import WEIGHT, check_call, check_number, check_scale, check_whole

Activation = Callable[[], nn.Module]


class Bottleneck(nn.Module):
    """v = mean(h) + exp(log_variance(h) / 2) * z, with linear layers for mean and log-variance.

    Usable in any network that is given z; h (N, features), z and v (N, size).
    """

    def __init__(self, features: int, size: int) -> None:
        super().__init__()
        check_whole("features", features, 1)
        check_whole("size", size, 1)
        self.mean = nn.Linear(features, size)
        self.log_variance = nn.Linear(features, size)

    def forward(self, h: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """v, the mean and the log-variance."""
        mean, log_variance = self.mean(h), self.log_variance(h)
        return mean + (log_variance / 2).exp() * z, mean, log_variance


class Precode(nn.Module):
    """decoder(bottleneck(encoder(x), z)) of a joined input (N, C*H*W + size); see `join`.

    Gives logits in eval mode, and (logits, mean, log_variance) in train mode.
    """

    def __init__(
        self, encoder: nn.Module, bottleneck: Bottleneck, decoder: nn.Module, shape: Shape
    ) -> None:
        super().__init__()
        self.encoder, self.bottleneck, self.decoder = encoder, bottleneck, decoder
        self.shape, self.size = tuple(shape), bottleneck.mean.out_features

    def forward(self, joined: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Logits (N, K)."""
        x, z = split(joined, self.shape)
        v, mean, log_variance = self.bottleneck(self.encoder(x), z)
        logits = self.decoder(v)
        return (logits, mean, log_variance) if self.training else logits


def join(x: Tensor, z: Tensor) -> Tensor:
    """Images (N, C, H, W) and latents (N, size) as vectors (N, C*H*W + size)."""
    if z.ndim != 2 or len(x) != len(z):
        raise ValueError(f"z must be (N, size), one for each x: {tuple(x.shape)}, {tuple(z.shape)}")
    return torch.cat([x.flatten(1), z], 1)


def split(joined: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The images and latents of joined vectors."""
    pixels = math.prod(shape)
    if joined.ndim != 2 or joined.shape[1] < pixels:
        raise ValueError(f"joined must be (N, {pixels} + size), got {tuple(joined.shape)}")
    return joined[:, :pixels].unflatten(1, shape), joined[:, pixels:]


@dataclass(frozen=True)
class Latent(Transform):
    """A client's transform: join a latent of `size` dimensions, N(0, scale^2), to each image.

    scale is 1 in PRECODE; 0 is the same network without randomness.
    """

    size: int
    shape: tuple[int, ...]
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_whole("size", self.size, 1)
        check_sizes("shape", self.shape)
        check_scale("scale", self.scale, WEIGHT)

    def __call__(self, x: Tensor, keys: Sequence[tuple[int, ...]]) -> Tensor:
        """(N, C*H*W + size); latent n comes from keys[n] alone."""
        draws = [
            torch.randn(self.size, dtype=torch.float32, generator=generator(LATENT, *key))
            for key in keys
        ]
        return join(x, self.scale * torch.stack(draws).to(x))

    def image(self, seen: Tensor) -> Tensor:
        """The images of joined vectors, (N, C, H, W); images stay as they are."""
        return seen if seen.shape[1:] == self.shape else split(seen, self.shape)[0]


def kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, I)) of each example, (N,)."""
    if mean.shape != log_variance.shape:
        raise ValueError(
            f"mean is {tuple(mean.shape)} but log_variance is {tuple(log_variance.shape)}"
        )
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


def slipped_kl(_: Tensor, log_variance: Tensor) -> Tensor:
    """What the published code computes: the log-variance stands in the mean's place."""
    return kl(log_variance, log_variance)


@dataclass(frozen=True)
class VariationalLoss:
    """Cross-entropy plus weight * KL where the network gives a mean and a log-variance.

    weight must not be negative; ValueError otherwise.
    """

    weight: float = 0.003
    divergence: Callable[[Tensor, Tensor], Tensor] = kl

    def __post_init__(self) -> None:
        check_number("weight", self.weight, WEIGHT)
        check_call("divergence", self.divergence)

    def __call__(self, output: Tensor | tuple[Tensor, Tensor, Tensor], y: Tensor) -> Tensor:
        """The mean over examples."""
        if isinstance(output, Tensor):
            return F.cross_entropy(output, y)
        logits, mean, log_variance = output
        return F.cross_entropy(logits, y) + self.weight * self.divergence(mean, log_variance).mean()

    def __repr__(self) -> str:
        return f"VariationalLoss({self.weight}, {self.divergence.__name__})"


@constructor
def precode_ffn(
    shape: Shape, classes: int, activation: Activation = nn.ReLU, size: int = 256, seed: int = 0
) -> Precode:
    """The network that the paper attacks: five dense layers of 500, 256 features, the bottleneck.

    2,931,850 parameters for CIFAR-10, all uniform in (-0.05, 0.05), as published.
    """
    sizes = [math.prod(image(shape)), 500, 500, 500, 500, 500, 256]
    encoder: dict[str, nn.Module] = {"flatten": nn.Flatten()}
    for i, (before, after) in enumerate(pairwise(sizes), start=1):
        encoder |= {f"dense{i}": nn.Linear(before, after), f"act{i}": activation()}
    return _assembled(shape, encoder, 500, classes, activation, size, seed)


@constructor
def precode_lenet(
    shape: Shape, classes: int, activation: Activation = nn.ReLU, size: int = 256, seed: int = 0
) -> Precode:
    """The convolutional variant: four 5x5 convolutions of 12 channels, 256 features.

    Strides are 2, 2, 1, 1. Weights and biases are uniform in (-0.05, 0.05), as published.
    """
    channels, height, width = image(shape)
    encoder: dict[str, nn.Module] = {}
    for i, stride in enumerate((2, 2, 1, 1), start=1):
        convolution = nn.Conv2d(channels if i == 1 else 12, 12, 5, stride, padding=2)
        encoder |= {f"conv{i}": convolution, f"act{i}": activation()}
    features = 12 * math.ceil(height / 4) * math.ceil(width / 4)
    encoder |= {"flatten": nn.Flatten(), "dense": nn.Linear(features, 256), "act": activation()}
    return _assembled(shape, encoder, features, classes, activation, size, seed)


def _assembled(
    shape: Shape, encoder: dict[str, nn.Module], hidden: int, classes: int,
    activation: Activation, size: int, seed: int,
) -> Precode:  # fmt: skip
    decoder = OrderedDict(
        dense=nn.Linear(size, hidden), act=activation(), last=nn.Linear(hidden, classes)
    )
    bottleneck = Bottleneck(256, size)
    model = Precode(sequential(shape, **encoder), bottleneck, nn.Sequential(decoder), shape)
    rng = generator(MODEL, seed)
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.05, 0.05, generator=rng)
    return model.eval()
