"""A learned prior: a network that removes noise from images, and so knows what they look like.

For images with noise of deviation sigma, the best denoiser D gives the slope of their log-density:
grad log p(x; sigma) = (D(x; sigma) - x) / sigma^2 (Miyasawa 1961; Vincent 2011). Preconditioned as
in Karras et al. 2022, table 1. The noise level falls during a climb.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from gradleak.data import Images, Source
from gradleak.files import sound
from gradleak.identity import digest, given, made
from gradleak.models import Shape, image, load, save
from gradleak.priors.networks import UNet, fit, log_uniform, waves
from gradleak.priors.prior import END, Fitted, Moment, Prior
from gradleak.randomness import DENOISER, generator, seeded
from gradleak.scales import (
    POSITIVE,
    WEIGHT,
    Scale,
    check_call,
    check_kind,
    check_number,
    check_scale,
    check_whole,
    per_attack,
)

LOWEST, HIGHEST = 0.01, 2.0  # noise levels of training, in pixels


class Denoiser(UNet):
    """D(x; sigma) for images (N, C, H, W) in [0, 1] plus noise, sigma (N,): a small U-Net.

    deviation: that of the images' pixels. width: channels at full resolution. trained_on: which
    images it has seen, if known.
    """

    levels = (LOWEST, HIGHEST)

    def __init__(self, shape: Shape, deviation: float, width: int = 16, seed: int = 0) -> None:
        image(shape)
        check_number("deviation", deviation, POSITIVE)
        check_whole("seed", seed)
        with seeded(DENOISER, seed):
            super().__init__(shape[0], shape[0], 8, width)
        self.shape, self.deviation = tuple(shape), deviation
        self.trained_on: Source | None = None

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The mean of the clean images, (N, C, H, W)."""
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"this denoiser was made for images {self.shape}, these are {tuple(x.shape[1:])}"
            )
        s, d = sigma.view(-1, 1, 1, 1), self.deviation
        total = (s.square() + d**2).sqrt()
        inner = super().forward((x - 0.5) / total, waves(sigma))
        return 0.5 + (x - 0.5) * d**2 / total.square() + s * d / total * inner


def trained_denoiser(
    images: Images, folder: Path, *, steps: int, width: int = 16, batch_size: int = 64,
    lr: float = 2e-3, seed: int = 0, device: torch.device = torch.device("cpu"),
) -> Denoiser:  # fmt: skip
    """A denoiser of these images, trained once and kept in `folder` as safetensors.

    Noise levels are log-uniform between `LOWEST` and `HIGHEST`; weighted as in Karras et al. 2022.
    """
    for name, value in (("steps", steps), ("width", width), ("batch_size", batch_size)):
        check_whole(name, value, 4 if name == "width" else 1)
    check_number("lr", lr, POSITIVE)
    check_whole("seed", seed)
    told = given(
        trained_denoiser, images.digests, None, steps=steps, width=width, batch_size=batch_size,
        lr=lr, seed=seed,
    )  # fmt: skip
    how = digest(Denoiser, told)
    path, deviation = folder / f"denoiser-{how}.safetensors", float(images.x.std())
    rng = generator(DENOISER, seed, 1)

    def loss(model: nn.Module) -> Tensor:
        x = images.x[torch.randint(len(images), (batch_size,), generator=rng)].to(device)
        sigma = log_uniform(LOWEST, HIGHEST, batch_size, rng).to(device)
        s, noise = (
            sigma.view(-1, 1, 1, 1),
            torch.randn(x.shape, dtype=torch.float32, generator=rng).to(device),
        )
        weight = (s.square() + deviation**2) / (s * deviation).square()
        return (weight * (model(x + s * noise, sigma) - x).square()).mean()

    if not path.exists():
        model = Denoiser(images.shape, deviation, width, seed).to(device)
        channels, high, wide = images.shape
        save(
            fit(model, loss, steps, lr, "denoiser"), path, channels=channels, high=high, wide=wide,
            deviation=deviation, width=width, dataset=images.name, images=len(images), steps=steps,
            how=how,
        )  # fmt: skip
    model = read_denoiser(path).to(device)
    model.trained_on = images.source
    return model


def read_denoiser(path: Path | str) -> Denoiser:
    """The denoiser of a safetensors file that `trained_denoiser` wrote.

    Raises DamagedError, a ValueError, for a file that is none.

    The file does not say which images it has seen: set `trained_on` if you know. Results are named
    after how the denoiser was made where the file tells, and else after its weights.
    """
    cure = "delete it, and `trained_denoiser` trains it again, or fetch it again (git checkout)"
    errors = (SafetensorError, KeyError, RuntimeError, TypeError, ArithmeticError)
    with sound(path, "a denoiser", cure, *errors):
        with safe_open(path, framework="pt") as file:
            told = json.loads((file.metadata() or {}).get("facts", "{}"))
        shape = (told["channels"], told["high"], told["wide"])
        model = Denoiser(shape, told["deviation"], told["width"])
    load(model, Path(path))
    model.eval().requires_grad_(False)
    return made(model, told["how"]) if "how" in told else model


@runtime_checkable
class Trained(Fitted, Protocol):
    """A denoiser that says what it was trained on: levels (lowest, highest) in pixels, images."""

    levels: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Learned(Prior):
    """Images are what a denoiser takes for images: a score-based (plug-and-play) prior.

    Only the slope of its log-density is known, at a noise level that falls geometrically from
    `start` to `end` pixels during the climb; `log_prob` is zero everywhere, with that slope times
    `weight`, so that restarts are compared by their likelihood. The denoiser looks at x with as
    much noise as it was trained for, fresh at each step and the same for all attacks (Mardani et
    al. 2024): the slope is (D(x + level z) - x) / level^2, with the right mean.

    denoiser: D(x, sigma) -> the clean images, x (N, C, H, W), sigma (N,) in pixels. Those of
    deepinv, such as `deepinv.models.DRUNet`, fit as they are; levels and training images are
    checked where a denoiser declares them, as `Trained` does: ValueError for levels outside.
    name: what records call it. seed: of the noise.
    """

    denoiser: Callable[[Tensor, Tensor], Tensor] = field(repr=False)
    name: str
    weight: Scale = 1.0
    start: float = 0.5
    end: float = 0.05
    seed: int = 0
    moment: Moment = field(default=END, repr=False)

    def __post_init__(self) -> None:
        check_call("denoiser", self.denoiser)
        check_kind("name", self.name, str)
        check_scale("weight", self.weight, WEIGHT)
        check_number("start", self.start, POSITIVE)
        check_number("end", self.end, POSITIVE)
        check_whole("seed", self.seed)
        trained = isinstance(self.denoiser, Trained)
        lowest, highest = self.denoiser.levels if trained else (0.0, math.inf)
        if not lowest <= self.end <= self.start <= highest:
            raise ValueError(
                f"noise levels must fall within those of the training, {lowest} to {highest} "
                f"pixels, got start {self.start} and end {self.end}"
            )

    def at(self, moment: Moment) -> Learned:
        """The prior at this moment of the climb, with its noise level."""
        return replace(self, moment=moment)

    @property
    def level(self) -> float:
        """The noise level, in pixels."""
        return self.start ** (1 - self.moment.progress) * self.end**self.moment.progress

    def log_prob(self, x: Tensor) -> Tensor:
        """Zero, (N,), with the slope of the log-density."""
        z = torch.randn(
            x.shape[-3:],
            dtype=torch.float32,
            generator=generator(DENOISER, self.seed, self.moment.key),
        )
        slope = per_attack(self.weight, x) * self.score(x.detach(), self.level * z.to(x))
        told = (x * slope).flatten(1).sum(1)
        return told - told.detach()

    @torch.no_grad()
    def score(self, x: Tensor, noise: Tensor | float = 0.0) -> Tensor:
        """grad log p(x + noise) at the present level, like x (N, ..., C, H, W), plus noise/level^2.

        noise: (C, H, W), or 0 where x is as noisy as the level says.
        """
        flat = x.flatten(0, -4)
        level = x.new_full((len(flat),), self.level)
        return ((self.denoiser(flat + noise, level) - flat) / self.level**2).view_as(x)
