"""Networks that serve an attack, denoisers and learnt attacks: a small U-Net, and training."""

import copy
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from gradleak.scales import POSITIVE, check_call, check_number, check_whole

WARM = 100  # steps until the learning rate is full
DECAY = 0.995  # of the running mean of the weights


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

    After Ronneberger et al. 2015. width: channels at full resolution, twice as many at a half and a
    quarter of it.
    """

    def __init__(self, inputs: int, outputs: int, told: int, width: int) -> None:
        super().__init__()
        for name, value in (("inputs", inputs), ("outputs", outputs), ("told", told)):
            check_whole(name, value, 1)
        check_whole("width", width, 4)
        if width % 4:
            raise ValueError(f"width must be a multiple of 4, got {width}")
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
            level = self.level(facts)
            h, passed = self.first(x), []
            for i, block in enumerate(self.down):
                h = block(F.avg_pool2d(h, 2, ceil_mode=True) if i else h, level)
                passed.append(h)
            h = self.middle(h, level)
            for block, before in zip(self.up, reversed(passed), strict=True):
                h = F.interpolate(h, size=before.shape[2:]) if h.shape != before.shape else h
                h = block(torch.cat([h, before], 1), level)
            return self.last(h).to(x)


def waves(level: Tensor) -> Tensor:
    """Sines and cosines of log(level) / 4 at four frequencies, (N, 8): how a network reads it."""
    angles = level.log().unsqueeze(1) / 4 * math.pi * torch.tensor([0.5, 1, 2, 4]).to(level)
    return torch.cat([angles.sin(), angles.cos()], 1)


def fit(
    model: nn.Module, loss: Callable[[nn.Module], Tensor], steps: int, lr: float, what: str
) -> nn.Module:
    """Descend loss(model) with Adam; return a running mean of the weights, frozen.

    loss: of a batch that it draws anew at each call. The learning rate rises over the first steps
    and falls along a cosine. what: name of the progress bar. The model itself is trained, too.
    """
    check_call("loss", loss)
    check_whole("steps", steps)
    check_number("lr", lr, POSITIVE)
    mean = copy.deepcopy(model)
    update = torch.optim.Adam(model.parameters(), lr=lr)
    for step in tqdm(range(steps), desc=what, delay=2, disable=None):
        warm, cosine = min(1, (step + 1) / WARM), 0.5 * (1 + math.cos(math.pi * step / steps))
        update.param_groups[0]["lr"] = lr * warm * cosine
        update.zero_grad()
        loss(model).backward()
        update.step()
        with torch.no_grad():
            keep = min(DECAY, (1 + step) / (10 + step))
            for average, new in zip(mean.parameters(), model.parameters(), strict=True):
                average.lerp_(new, 1 - keep)
    return mean.eval().requires_grad_(False)


def log_uniform(lowest: float, highest: float, count: int, rng: torch.Generator) -> Tensor:
    """`count` levels between the two, each factor alike."""
    check_number("lowest", lowest, POSITIVE)
    check_number("highest", highest, POSITIVE)
    if lowest > highest:
        raise ValueError(f"lowest must not exceed highest: {lowest} and {highest}")
    check_whole("count", count)
    return (
        lowest
        * (math.log(highest / lowest) * torch.rand(count, dtype=torch.float32, generator=rng)).exp()
    )
