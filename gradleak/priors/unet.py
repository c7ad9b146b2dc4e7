"""A small U-Net (Ronneberger et al. 2015) that is told facts about each image."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Block(nn.Module):
    """Two convolutions with a residual, scaled by what the facts ask for."""

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


class UNet(nn.Module):
    """(x (N, inputs, H, W), facts (N, told)) -> (N, outputs, H, W); zero before any training.

    width: channels at full resolution, twice as many at a half and a quarter of it.
    """

    def __init__(self, inputs: int, outputs: int, told: int, width: int) -> None:
        super().__init__()
        facts, wide = 4 * width, 2 * width
        self.level = nn.Sequential(nn.Linear(told, facts), nn.SiLU(), nn.Linear(facts, facts))
        self.first = nn.Conv2d(inputs, width, 3, padding=1)
        sizes = ((width, width), (width, wide), (wide, wide))
        self.down = nn.ModuleList(_Block(*size, facts) for size in sizes)
        self.middle = _Block(wide, wide, facts)
        sizes = ((2 * wide, wide), (2 * wide, wide), (wide + width, width))
        self.up = nn.ModuleList(_Block(*size, facts) for size in sizes)
        self.last = nn.Sequential(
            nn.GroupNorm(4, width), nn.SiLU(), nn.Conv2d(width, outputs, 3, padding=1)
        )
        nn.init.zeros_(self.last[2].weight)

    def forward(self, x: Tensor, facts: Tensor) -> Tensor:
        """Computed in bfloat16, twice as fast where processors know it; returned like x."""
        with torch.autocast(x.device.type, torch.bfloat16):
            return self._blocks(x, facts).to(x)

    def _blocks(self, x: Tensor, facts: Tensor) -> Tensor:
        level = self.level(facts)
        x, passed = self.first(x), []
        for i, block in enumerate(self.down):
            x = block(F.avg_pool2d(x, 2, ceil_mode=True) if i else x, level)
            passed.append(x)
        x = self.middle(x, level)
        for block, before in zip(self.up, reversed(passed), strict=True):
            x = F.interpolate(x, size=before.shape[2:]) if x.shape != before.shape else x
            x = block(torch.cat([x, before], 1), level)
        return self.last(x)


def waves(level: Tensor) -> Tensor:
    """Sines and cosines of log(level) / 4 at four frequencies, (N, 8): how a network reads it."""
    angles = level.log().unsqueeze(1) / 4 * math.pi * torch.tensor([0.5, 1, 2, 4]).to(level)
    return torch.cat([angles.sin(), angles.cos()], 1)
