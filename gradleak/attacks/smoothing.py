"""Log-posteriors that are averaged over what is unknown: over a ball, or over other latents."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from gradleak.attacks.maximise import Objective
from gradleak.priors import END, Moment
from gradleak.randomness import BALL, generator
from gradleak.scales import POSITIVE, Scale, check_scale, check_whole, per_attack


@runtime_checkable
class Smoothing(Protocol):
    """What a log-posterior is averaged over: `samples` points for each x, drawn anew each step."""

    samples: int

    def points(self, x: Tensor, keys: Sequence[tuple[int, ...]], moment: Moment) -> Tensor:
        """The points (N, samples, *shape) of x (N, *shape); attack n's come from keys[n] alone."""

    def around(self, f: Objective, keys: Sequence[tuple[int, ...]]) -> Objective:
        """The mean of f over the points; f takes N * samples of them, each attack's together."""

        def mean(x: Tensor, moment: Moment = END) -> Tensor:
            points = self.points(x, keys, moment)
            return f(points.flatten(0, 1), moment).unflatten(0, (len(x), -1)).mean(1)

        return mean


@dataclass(frozen=True)
class Ball(Smoothing):
    """Climb the mean log-posterior of `samples` points within `radius` of x.

    By Jensen's inequality that mean bounds the logarithm of the ball's mass from below, up to a
    constant (paper, section 4). Points are uniform in volume and fresh at each step. The radius, in
    pixels (L2), a number or (N,), falls linearly to zero on the way, so that the climb ends at the
    plain log-posterior. Raises ValueError unless radius > 0 and samples > 0.
    """

    radius: Scale
    samples: int = 4

    def __post_init__(self) -> None:
        check_scale("radius", self.radius, POSITIVE, "for no ball at all use ball=None")
        check_whole("samples", self.samples, 1, "for no ball at all use ball=None")

    def points(self, x: Tensor, keys: Sequence[tuple[int, ...]], moment: Moment) -> Tensor:
        """Points around x (N, *shape), (N, samples, *shape); attack n's come from keys[n] alone."""
        shape, size = (self.samples, *x.shape[1:]), x[0].numel()
        offsets = []
        for key in keys:
            rng = generator(BALL, *key, moment.key)
            direction = torch.randn(shape, dtype=torch.float32, generator=rng).flatten(1)
            length = torch.rand(self.samples, 1, dtype=torch.float32, generator=rng) ** (1 / size)
            offsets.append((length * direction / direction.norm(dim=1, keepdim=True)).view(shape))
        radius = per_attack(self.radius, x.unsqueeze(1))
        return x.unsqueeze(1) + (1 - moment.progress) * radius * torch.stack(offsets).to(x)
