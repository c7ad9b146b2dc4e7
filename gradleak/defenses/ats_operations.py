"""Image operations of ATS (Gao et al. 2021): a table of fifty, each with its magnitude.

They are torchvision's. On uint8 images they give what Pillow gives, up to one level of 255; on
floating-point images most are differentiable.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from gradleak.names import choose
from gradleak.scales import check_number, check_whole

LEVELS = 10  # magnitudes have levels 0 to 9
FAR = 150 / 331  # the longest translation, of the image's side


@dataclass(frozen=True)
class Operation:
    """An operation by its name in `KINDS` and its level, 0 to 9; ValueError otherwise."""

    name: str
    level: int = 0

    def __post_init__(self) -> None:
        choose("operation", self.name, KINDS)
        check_whole("level", self.level)
        if self.level >= LEVELS:
            raise ValueError(f"a magnitude's level is 0 to {LEVELS - 1}, got {self.level}")

    @property
    def magnitude(self) -> float:
        """The unsigned magnitude, linear in the level."""
        low, high, *_ = KINDS[self.name]
        value = low + (high - low) * self.level / (LEVELS - 1)
        return round(value) if self.name == "posterize" else value

    @property
    def signed(self) -> tuple[float, ...]:
        """The magnitude with each sign that it may have."""
        either = KINDS[self.name][2] and self.magnitude
        return (self.magnitude, -self.magnitude) if either else (self.magnitude,)

    def drawn(self, generator: torch.Generator) -> tuple[str, float]:
        """The name and the magnitude with its sign drawn, as `apply` takes them."""
        negative = (
            len(self.signed) > 1 and torch.rand((), dtype=torch.float32, generator=generator) < 0.5
        )
        return self.name, self.signed[int(negative)]


def apply(name: str, magnitude: float, x: Tensor) -> Tensor:
    """One operation on images (..., C, H, W), uint8 or floating-point in [0, 1].

    What comes in from outside is black, and mid-grey under rotation. Raises ValueError if grey
    images are given to an operation on colour.
    """
    choose("operation", name, KINDS)
    check_number("magnitude", magnitude, "[-256, 256]")
    if name == "color" and x.shape[-3] != 3:
        raise ValueError(
            f"'color' needs colour images, these have {x.shape[-3]} channel(s): choose a policy "
            "without it (operations 12, 20, 27, 34 and 39)"
        )
    return KINDS[name][3](x, magnitude)


def _affine(x: Tensor, right: float, down: float, shear_x: float, shear_y: float) -> Tensor:
    """x'(row, column) = x at (row, column) moved right and down and sheared, nearest pixel."""
    height, width = x.shape[-2:]
    # As Pillow does: the centre of a pixel is mapped, and the pixel that holds it is taken.
    centres = [torch.arange(n, dtype=torch.double) + 0.5 for n in (height, width)]
    rows, columns = torch.meshgrid(*centres, indexing="ij")
    from_column = (columns + shear_x * rows + right).floor().long()
    from_row = (rows + shear_y * columns + down).floor().long()
    inside = (from_column >= 0) & (from_column < width) & (from_row >= 0) & (from_row < height)
    moved = x[..., from_row.clamp(0, height - 1), from_column.clamp(0, width - 1)]
    return moved * inside.to(device=x.device, dtype=x.dtype)


def _rotate(x: Tensor, degrees: float) -> Tensor:
    grey = [0.5 if x.is_floating_point() else 128] * x.shape[-3]
    return tv.rotate(x, degrees, interpolation=InterpolationMode.NEAREST, fill=grey)


def _sharpness(x: Tensor, magnitude: float) -> Tensor:
    if not x.is_floating_point():
        return tv.adjust_sharpness(x, 1 + magnitude)
    # torchvision's writes in place, which has no derivative.
    kernel = torch.ones(1, 1, 3, 3).to(x)
    kernel[..., 1, 1] = 5
    channels = x.reshape(-1, 1, *x.shape[-2:])
    inside = F.pad(torch.ones_like(channels[:, :, 1:-1, 1:-1]), [1] * 4)
    smooth = F.pad(F.conv2d(channels, kernel / kernel.sum()), [1] * 4)
    smooth = (smooth + (1 - inside) * channels).view_as(x)
    return (smooth + (1 + magnitude) * (x - smooth)).clamp(0, 1)


def _solarize(x: Tensor, threshold: float) -> Tensor:
    levels, top = (255 * x, 1.0) if x.is_floating_point() else (x.int(), 255)
    return torch.where(levels >= threshold, top - x, x)


# Magnitude at the lowest and the highest level, whether its sign is drawn at random, the operation.
KINDS: dict[str, tuple[float, float, bool, Callable[[Tensor, float], Tensor]]] = {
    "shear_x": (0.0, 0.3, True, lambda x, m: _affine(x, 0, 0, m, 0)),
    "shear_y": (0.0, 0.3, True, lambda x, m: _affine(x, 0, 0, 0, m)),
    "translate_x": (0.0, FAR, True, lambda x, m: _affine(x, m * x.shape[-1], 0, 0, 0)),
    "translate_y": (0.0, FAR, True, lambda x, m: _affine(x, 0, m * x.shape[-2], 0, 0)),
    "rotate": (0.0, 30.0, False, _rotate),  # degrees
    # The factors of the next four are 1 plus or minus this.
    "color": (0.0, 0.5, True, lambda x, m: tv.adjust_saturation(x, 1 + m)),
    "contrast": (0.0, 0.5, True, lambda x, m: tv.adjust_contrast(x, 1 + m)),
    "sharpness": (0.0, 0.5, True, _sharpness),
    "brightness": (0.0, 0.5, True, lambda x, m: tv.adjust_brightness(x, 1 + m)),
    "posterize": (8.0, 4.0, False, lambda x, m: tv.posterize(x, int(m))),  # bits that are kept
    "solarize": (256.0, 0.0, False, _solarize),  # of 256, from where on pixels are inverted
    "autocontrast": (0.0, 0.0, False, lambda x, _: tv.autocontrast(x)),
    "equalize": (0.0, 0.0, False, lambda x, _: tv.equalize(x)),
    "invert": (0.0, 0.0, False, lambda x, _: tv.invert(x)),
}

# The published table, by index; level 0 where an operation has no magnitude.
OPERATIONS: tuple[Operation, ...] = tuple(
    Operation(*entry)
    for entry in (
        ("invert", 0), ("contrast", 6), ("rotate", 2), ("translate_x", 9), ("sharpness", 1),
        ("sharpness", 3), ("shear_y", 2), ("translate_y", 2), ("autocontrast", 0), ("equalize", 0),
        ("shear_y", 5), ("posterize", 5), ("color", 3), ("brightness", 5), ("sharpness", 9),
        ("brightness", 9), ("equalize", 0), ("equalize", 0), ("contrast", 7), ("sharpness", 5),
        ("color", 5), ("translate_x", 5), ("equalize", 0), ("autocontrast", 0), ("translate_y", 3),
        ("sharpness", 6), ("brightness", 6), ("color", 8), ("solarize", 0), ("invert", 0),
        ("equalize", 0), ("autocontrast", 0), ("equalize", 0), ("equalize", 0), ("color", 5),
        ("equalize", 0), ("autocontrast", 0), ("solarize", 4), ("brightness", 3), ("color", 0),
        ("solarize", 1), ("autocontrast", 0), ("translate_y", 3), ("translate_y", 3),
        ("autocontrast", 0), ("solarize", 1), ("equalize", 0), ("invert", 0), ("translate_y", 3),
        ("autocontrast", 0),
    )
)  # fmt: skip
