"""An attack that learns how to climb: few stages, each a network that is shown the slope.

A stage gets where the attack stands and the slope of log p(g | x, y) there, and answers with the
image of least squared error given both. So it learns from images what a prior would tell and what
the slope conceals, and the last stage ends near the posterior mean E[x | g, y]. Learnt iterations
as in Putzky & Welling 2017 and Adler & Oktem 2017, here one after the other.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from gradleak.attacks._learnt import Learnt
from gradleak.attacks.attack import Reconstruction, answered
from gradleak.client import ServerView
from gradleak.data import Images
from gradleak.device import ordinary
from gradleak.priors import UNet, fit, log_uniform, waves
from gradleak.randomness import UNROLLED, generator, seeded
from gradleak.scales import per_attack

AT_ONCE = 64  # clients of one noise scale, whose gradients are held as tensors

Shown = tuple[Tensor, Tensor, Tensor, Tensor]
"""What a stage sees of N attacks: x and slope (N, C, H, W), noise scale (N,), label (N,)."""


class Stages(nn.Module):
    """What an unrolled attack learns. start: the mean image of each class; stages: in order."""

    def __init__(self, start: Tensor, stages: Iterable[nn.Module]) -> None:
        super().__init__()
        self.register_buffer("start", start)
        self.stages = nn.ModuleList(stages)

    def forward(self, view: ServerView, scale: float) -> Tensor:
        """Where the last stage ends, (N, C, H, W)."""
        x = self.start[view.labels]
        for stage in self.stages:
            x = stage(*_shown(view, x, scale)).clamp(0, 1)
        return x


@dataclass(frozen=True, eq=False, repr=False)
class Unrolled(Learnt):
    """(released gradient, label, noise scale) -> image, in `stages` stages.

    Each image releases one gradient, at a log-uniform scale, and every stage learns from all of
    them, in `steps` training steps. Raises ValueError for clients of several images.
    """

    _: KW_ONLY
    stages: int = 4
    steps: int = 1000
    width: int = 16
    batch_size: int = 64
    lr: float = 2e-3
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % 4:
            raise ValueError(f"width must be a multiple of 4, got {self.width}")
        if self.client.batch_size is not None:
            raise ValueError("learnt stages attack clients of one image: use batch_size=None")

    def train(self) -> Stages:
        """Learn the stages, one after the other."""
        images, rng = self.images, generator(UNROLLED, self.seed)
        order = torch.randperm(len(images), generator=rng)
        parts = [images.take(part.tolist()) for part in order.split(AT_ONCE)]
        scales = log_uniform(self.lowest, self.highest, len(parts), rng).tolist()
        clients = [replace(self.client, defense=self.family(scale)) for scale in scales]
        start, _ = self.client.placed(_class_means(images), images.y)
        x, made = [start[part.y] for part in parts], []
        for name in (f"stage {number + 1}/{self.stages}" for number in range(self.stages)):
            seen = []
            bar = tqdm(clients, desc=f"slopes, {name}", delay=2, disable=None)
            for client, part, where, scale in zip(bar, parts, x, scales, strict=True):
                view = client.release(part.x, part.y, seed=self.seed, key=part.index)
                seen.append(_shown(view, where, scale))
            stage = _begin(made, seen, images.classes, self.width, self.seed)
            loss = _loss(seen, parts, self.batch_size, rng)
            made.append(fit(stage, loss, self.steps, self.lr, name))
            x = [made[-1](*shown).clamp(0, 1) for shown in seen]
        return Stages(start, made)

    @ordinary
    def attack(self, view: ServerView, seed: int = 0) -> Reconstruction:
        """Nearly the posterior mean of each client's image, (N, C, H, W); nothing is random.

        Raises ValueError for another defense than it was trained for, for a scale outside of its
        training, and where labels are hidden.
        """
        begin, scale = time.perf_counter(), self.scale(view)
        parts = (view[k : k + AT_ONCE] for k in range(0, len(view), AT_ONCE))
        return answered(torch.cat([self.learnt(part, scale) for part in parts]), begin)


class _Stage(nn.Module):
    """x and slope -> a better x. unit: the deviation of its slopes at noise scale 1."""

    def __init__(self, channels: int, classes: int, width: int, unit: Tensor) -> None:
        super().__init__()
        self.classes = classes
        self.network = UNet(3 * channels, channels, 8 + classes, width)
        self.register_buffer("unit", unit)

    def forward(self, x: Tensor, slope: Tensor, scale: Tensor, y: Tensor) -> Tensor:
        facts = torch.cat([waves(scale), F.one_hot(y, self.classes)], 1)
        # The slope against that of noise alone, and against that of errors alone.
        noise = slope * per_attack(scale, x)
        error = noise * per_attack(scale, x) / self.unit
        return x + self.network(torch.cat([x - 0.5, noise.asinh(), error.asinh()], 1), facts)


def _shown(view: ServerView, x: Tensor, scale: float) -> Shown:
    slope = view.client.slope(view.g, x, view.labels)
    return x, slope, x.new_full((len(x),), scale), view.labels


def _begin(
    made: Sequence[nn.Module], seen: Sequence[Shown], classes: int, width: int, seed: int
) -> nn.Module:
    """A stage before its training: the last one, in its own unit, or a new one."""
    errors = torch.cat([slope * per_attack(scale, slope) ** 2 for _, slope, scale, _ in seen])
    with seeded(UNROLLED, seed, 1):
        stage = _Stage(errors.shape[1], classes, width, errors.std())
    if made:
        stage.network.load_state_dict(made[-1].network.state_dict())
    return stage.to(errors.device)


def _loss(
    seen: Sequence[Shown], parts: Sequence[Images], batch_size: int, rng: torch.Generator
) -> Callable[[nn.Module], Tensor]:
    """Squared error of a batch, relative to what it was: so each noise scale counts alike."""
    x, slope, scale, y = (torch.cat(part) for part in zip(*seen, strict=True))
    truth = torch.cat([part.x for part in parts]).to(x)
    before = torch.cat([(s[0] - part.x.to(x)).square().mean().expand(len(part))
                        for s, part in zip(seen, parts, strict=True)])  # fmt: skip

    def loss(stage: nn.Module) -> Tensor:
        i = torch.randint(len(x), (batch_size,), generator=rng).to(x.device)
        error = (stage(x[i], slope[i], scale[i], y[i]) - truth[i]).square()
        return (error.flatten(1).mean(1) / before[i]).mean()

    return loss


def _class_means(images: Images) -> Tensor:
    """The mean image of each class, of all images for a class that has none, (classes, C, H, W)."""
    means = images.x.mean(0).repeat(images.classes, 1, 1, 1)
    for label in images.y.unique().tolist():
        means[label] = images.x[images.y == label].mean(0)
    return means
