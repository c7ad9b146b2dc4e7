"""An attack that learns how to climb: few stages, each a network that is shown the slope.

A stage gets where the attack stands and the slope of log p(g | x, y) there, and answers with the
image of least squared error given both. So it learns from images what a prior would tell and what
the slope conceals, and the last stage ends near the posterior mean E[x | g, y]. Learnt iterations
as in Putzky & Welling 2017 and Adler & Oktem 2017, here one after the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from gradleak import identity
from gradleak.attacks._learnt import Family, Learnt, told
from gradleak.attacks.attack import Reconstruction, answered
from gradleak.client import Client, ServerView
from gradleak.data import Images
from gradleak.defenses import NoDefense
from gradleak.identity import given
from gradleak.priors import UNet, fit, log_uniform, waves
from gradleak.randomness import UNROLLED, generator, seeded
from gradleak.scales import per_attack

AT_ONCE = 64  # clients of one noise scale, whose gradients are held as tensors

Shown = tuple[Tensor, Tensor, Tensor, Tensor]
"""What a stage sees of N attacks: x and slope (N, C, H, W), noise scale (N,), label (N,)."""


@dataclass(frozen=True, eq=False, repr=False)
class Unrolled(Learnt):
    """(released gradient, label, noise scale) -> image; see `Unrolled.fit`."""

    @classmethod
    def fit(
        cls, client: Client, family: Family, images: Images, lowest: float, highest: float, *,
        stages: int = 4, steps: int = 1000, width: int = 16, batch_size: int = 64,
        lr: float = 2e-3, seed: int = 0,
    ) -> Unrolled:  # fmt: skip
        """Trained for clients of any noise scale between the two, on images the adversary has.

        client: its network and loss, whatever its defense; family: the defense by its scale. Each
        image releases one gradient, at a log-uniform scale, and every stage learns from all of
        them, in `steps` training steps. Raises ValueError for clients of several images.
        """
        options = dict(
            stages=stages, steps=steps, width=width, batch_size=batch_size, lr=lr, seed=seed
        )
        if client.batch_size is not None:
            raise ValueError("learnt stages attack clients of one image: use batch_size=None")
        rng = generator(UNROLLED, seed)
        order = torch.randperm(len(images), generator=rng)
        parts = [images.take(part.tolist()) for part in order.split(AT_ONCE)]
        scales = log_uniform(lowest, highest, len(parts), rng).tolist()
        clients = [replace(client, defense=family(scale)) for scale in scales]
        start, _ = client.placed(_class_means(images), images.y)
        x, made = [start[part.y] for part in parts], []
        for name in (f"stage {number + 1}/{stages}" for number in range(stages)):
            seen = _seen(clients, parts, x, scales, seed, name)
            stage = _begin(made, seen, images.classes, width, seed)
            made.append(fit(stage, _loss(seen, parts, batch_size, rng), steps, lr, name))
            x = [made[-1](*shown).clamp(0, 1) for shown in seen]
        bare = replace(client, defense=NoDefense())
        how = given(cls.fit, bare, family, images.digests, lowest, highest, **options)
        learnt = identity.made(Stages(start, made), cls, how)
        return cls(learnt, family, lowest, highest, images.source, told(images, options))

    def attack(self, view: ServerView, seed: int = 0) -> Reconstruction:
        """Nearly the posterior mean of each client's image, (N, C, H, W); nothing is random.

        Raises ValueError for hidden labels, a defense or a scale that it was not trained for.
        """
        begin, scale = time.perf_counter(), self.scale(view)
        parts = (view[k : k + AT_ONCE] for k in range(0, len(view), AT_ONCE))
        return answered(torch.cat([self.learnt(part, scale) for part in parts]), begin)


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


def _seen(
    clients: Sequence[Client], parts: Sequence[Images], x: Sequence[Tensor],
    scales: Sequence[float], seed: int, name: str,
) -> list[Shown]:  # fmt: skip
    """What the next stage sees of all training images."""
    steps = tqdm(list(zip(clients, parts, x, scales, strict=True)), f"slopes, {name}", delay=2,
                 disable=None)  # fmt: skip
    return [
        _shown(client.release(part.x, part.y, seed=seed, key=part.index), at, scale)
        for client, part, at, scale in steps
    ]


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
