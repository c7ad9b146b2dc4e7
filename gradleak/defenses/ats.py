"""ATS: clients transform their images before they take a gradient (Gao et al. 2021).

A gradient of T(x) tells about x only what T(x) tells. So attacks find T(x), as if there were no
defense; what T(x) says about T and x is a question about images (`gradleak.attacks.undo_ats`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from gradleak.defenses.ats_operations import OPERATIONS, apply
from gradleak.defenses.noise import Transform
from gradleak.randomness import TRANSFORM, generator
from gradleak.scales import check_flag, check_kind, refuse

PADDING = 4  # pixels on each side before the random crop


@dataclass(frozen=True)
class Transformation:
    """One transformation with everything about it decided, T.

    shift: (down, right), where the crop begins in the image padded by `PADDING` black pixels.
    flip: mirrored left to right, after the crop. operations: (name, signed magnitude) in turn.
    """

    shift: tuple[int, int]
    flip: bool
    operations: tuple[tuple[str, float], ...]

    def __post_init__(self) -> None:
        places = range(2 * PADDING + 1)
        if (
            not isinstance(self.shift, tuple)
            or len(self.shift) != 2
            or any(type(n) is not int or n not in places for n in self.shift)
        ):
            refuse("shift", f"two whole numbers from 0 to {2 * PADDING}", self.shift)
        check_flag("flip", self.flip)

    def __call__(self, x: Tensor) -> Tensor:
        """T(x) of images (..., C, H, W), uint8 or floating-point in [0, 1]."""
        down, right = self.shift
        height, width = x.shape[-2:]
        x = F.pad(x, [PADDING] * 4)[..., down : down + height, right : right + width]
        x = x.flip(-1) if self.flip else x
        for name, magnitude in self.operations:
            x = apply(name, magnitude, x)
        return x


@dataclass(frozen=True)
class ATS(Transform):
    """Transform every image anew: a random crop, a random flip, and one of the policies.

    policy: indices into `OPERATIONS` such as "21-13-3", applied in turn; several joined
    by "+" are a hybrid, of which each image gets one at random. Magnitudes get a random sign where
    the operation has one. Raises ValueError for empty policies and unknown indices.
    """

    policy: str

    def __post_init__(self) -> None:
        check_kind("policy", self.policy, str, "such as '21-13-3'")
        self.policies  # noqa: B018  read it once, so that errors come early

    @property
    def policies(self) -> tuple[tuple[int, ...], ...]:
        """The indices of each policy."""
        return tuple(_indices(part) for part in self.policy.split("+"))

    def draw(self, *key: int) -> Transformation:
        """The transformation of one image, by its random key."""
        rng = generator(TRANSFORM, *key)
        down, right = torch.randint(2 * PADDING + 1, (2,), generator=rng).tolist()
        flip = bool(torch.rand((), dtype=torch.float32, generator=rng) < 0.5)
        chosen = self.policies[int(torch.randint(len(self.policies), (), generator=rng))]
        operations = tuple(OPERATIONS[i].drawn(rng) for i in chosen)
        return Transformation((down, right), flip, operations)

    def __call__(self, x: Tensor, keys: Sequence[tuple[int, ...]]) -> Tensor:
        """T_n(x_n) of images (N, C, H, W) in [0, 1]; image n's randomness comes from keys[n].

        As published, operations see 8 bits for each channel.
        """
        levels = (x * 255).round().clamp(0, 255).byte()
        done = [self.draw(*key)(image) for key, image in zip(keys, levels, strict=True)]
        return torch.stack(done).to(x) / 255

    def every(self) -> tuple[list[Transformation], Tensor]:
        """All K transformations that can be drawn, up to the flip, and the chance of each, (K,).

        A flip is the same as transforming the mirrored image: with it every x would have a twin.
        """
        shifts = list(product(range(2 * PADDING + 1), repeat=2))
        found, chances = [], []
        for policy in self.policies:
            signs = [[(OPERATIONS[i].name, m) for m in OPERATIONS[i].signed] for i in policy]
            own = [
                Transformation(shift, False, done) for done in product(*signs) for shift in shifts
            ]
            found += own
            chances += [1 / len(own) / len(self.policies)] * len(own)
        return found, torch.tensor(chances)


def _indices(policy: str) -> tuple[int, ...]:
    parts = [part.strip() for part in policy.split("-")]
    if parts == [""]:
        raise ValueError("a policy names operations, such as '21-13-3'; this one is empty")
    known = {f"{i:0{width}}" for i in range(len(OPERATIONS)) for width in (1, 2)}
    if not known.issuperset(parts):
        raise ValueError(
            f"policy '{policy:.50}' must be indices from 0 to {len(OPERATIONS) - 1} joined by '-', "
            "such as '21-13-3'; '+' joins several policies"
        )
    return tuple(map(int, parts))
