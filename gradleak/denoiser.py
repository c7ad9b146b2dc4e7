"""A network that removes noise from images, and so knows what images look like.

For images with noise of deviation sigma, the best denoiser D gives the slope of their log-density:
grad log p(x; sigma) = (D(x; sigma) - x) / sigma^2 (Miyasawa 1961; Vincent 2011). Preconditioned as
in Karras et al. 2022, table 1.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from tqdm import tqdm

from gradleak.data import Images, Source
from gradleak.models import Shape
from gradleak.randomness import DENOISER, generator
from gradleak.train import load, save

LOWEST, HIGHEST = 0.01, 2.0  # noise levels of training, in pixels
DECAY = 0.995  # of the running mean of the weights


class _Block(nn.Module):
    """Two convolutions with a residual, scaled by what the noise level asks for."""

    def __init__(self, channels: int, out: int, told: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(4, channels), nn.GroupNorm(4, out)
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.level = nn.Linear(told, 2 * out)
        self.skip = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        scale, shift = self.level(level)[..., None, None].chunk(2, 1)
        h = self.norm2(self.conv1(F.silu(self.norm1(x)))) * (1 + scale) + shift
        return self.skip(x) + self.conv2(F.silu(h))


class Denoiser(nn.Module):
    """D(x; sigma) for images (N, C, H, W) in [0, 1] plus noise, sigma (N,): a small U-Net.

    deviation: that of the images' pixels. width: channels at full resolution. trained_on: which
    images it has seen, if known.
    """

    def __init__(self, shape: Shape, deviation: float, width: int = 16, seed: int = 0) -> None:
        super().__init__()
        self.shape, self.deviation = tuple(shape), deviation
        self.trained_on: Source | None = None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator(DENOISER, seed).initial_seed())
            told, wide = 4 * width, 2 * width
            self.level = nn.Sequential(nn.Linear(8, told), nn.SiLU(), nn.Linear(told, told))
            self.first = nn.Conv2d(shape[0], width, 3, padding=1)
            self.down = nn.ModuleList(
                [_Block(width, width, told), _Block(width, wide, told), _Block(wide, wide, told)]
            )
            self.middle = _Block(wide, wide, told)
            self.up = nn.ModuleList(
                [_Block(2 * wide, wide, told), _Block(2 * wide, wide, told),
                 _Block(wide + width, width, told)]
            )  # fmt: skip
            self.last = nn.Sequential(
                nn.GroupNorm(4, width), nn.SiLU(), nn.Conv2d(width, shape[0], 3, padding=1)
            )
        nn.init.zeros_(self.last[2].weight)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The mean of the clean images, (N, C, H, W)."""
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"this denoiser was made for images {self.shape}, these are {tuple(x.shape[1:])}"
            )
        s, d = sigma.view(-1, 1, 1, 1), self.deviation
        total = (s.square() + d**2).sqrt()
        # Twice as fast, where processors know bfloat16; its rounding is far below the noise.
        with torch.autocast(x.device.type, torch.bfloat16):
            inner = self._network((x - 0.5) / total, sigma.log() / 4).to(x)
        return 0.5 + (x - 0.5) * d**2 / total.square() + s * d / total * inner

    def _network(self, x: Tensor, level: Tensor) -> Tensor:
        angles = level.unsqueeze(1) * math.pi * torch.tensor([0.5, 1, 2, 4]).to(level)
        level = self.level(torch.cat([angles.sin(), angles.cos()], 1))
        x, passed = self.first(x), []
        for i, block in enumerate(self.down):
            x = block(F.avg_pool2d(x, 2, ceil_mode=True) if i else x, level)
            passed.append(x)
        x = self.middle(x, level)
        for block, before in zip(self.up, reversed(passed), strict=True):
            x = F.interpolate(x, size=before.shape[2:]) if x.shape != before.shape else x
            x = block(torch.cat([x, before], 1), level)
        return self.last(x)


def trained_denoiser(
    images: Images,
    folder: Path,
    *,
    steps: int,
    width: int = 16,
    batch_size: int = 64,
    lr: float = 2e-3,
    seed: int = 0,
    device: torch.device = torch.device("cpu"),
) -> Denoiser:
    """A denoiser of these images, trained once and kept in `folder` as safetensors.

    Noise levels are log-uniform between `LOWEST` and `HIGHEST`; weighted as in Karras et al. 2022.
    """
    told = (images.name, images.split, images.index, steps, width, batch_size, lr, seed)
    path = folder / f"denoiser-{hashlib.sha256(repr(told).encode()).hexdigest()[:16]}.safetensors"
    if path.exists():
        model = read_denoiser(path).to(device)
        model.trained_on = images.source
        return model
    deviation = float(images.x.std())
    model = Denoiser(images.shape, deviation, width, seed).to(device)
    model.trained_on = images.source
    mean = copy.deepcopy(model)
    update = torch.optim.Adam(model.parameters(), lr=lr)
    rng = generator(DENOISER, seed, 1)
    for step in tqdm(range(steps), desc="denoiser", delay=2, disable=None):
        for group in update.param_groups:
            group["lr"] = (
                lr * min(1, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / steps))
            )
        x = images.x[torch.randint(len(images), (batch_size,), generator=rng)].to(device)
        span = math.log(HIGHEST / LOWEST)
        sigma = LOWEST * (span * torch.rand(batch_size, generator=rng)).exp().to(device)
        noise = torch.randn(x.shape, generator=rng).to(device)
        s = sigma.view(-1, 1, 1, 1)
        weight = (s.square() + deviation**2) / (s * deviation).square()
        loss = (weight * (model(x + s * noise, sigma) - x).square()).mean()
        update.zero_grad()
        loss.backward()
        update.step()
        with torch.no_grad():
            keep = min(DECAY, (1 + step) / (10 + step))
            for average, now in zip(mean.parameters(), model.parameters(), strict=True):
                average.lerp_(now, 1 - keep)
    channels, high, wide = images.shape
    save(
        mean, path, channels=channels, high=high, wide=wide, deviation=deviation, width=width,
        dataset=images.name, images=len(images), steps=steps,
    )  # fmt: skip
    return mean.eval().requires_grad_(False)


def read_denoiser(path: Path | str) -> Denoiser:
    """The denoiser of a safetensors file that `trained_denoiser` wrote; ValueError for others.

    The file does not say which images it has seen: set `trained_on` if you know.
    """
    try:
        with safe_open(path, framework="pt") as file:
            told = json.loads((file.metadata() or {}).get("facts", "{}"))
        shape = (told["channels"], told["high"], told["wide"])
        model = Denoiser(shape, told["deviation"], told["width"])
        load(model, Path(path))
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path} is no safetensors file of a denoiser: {error}") from error
    return model.eval().requires_grad_(False)
