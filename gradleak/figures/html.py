"""Rows of pictures with their scores, as HTML that carries everything it needs.

The slider beside this module shows them; nothing here moves.
"""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from PIL import Image
from torch import Tensor

# Everything is below one class, so that the page around the slider keeps its own style. The
# !important lines undo what the book's theme does to outputs in dark mode.
STYLE = """
.gl-strength{container-type:inline-size;margin:.75rem 0;font-size:.9rem;line-height:1.35;
 font-variant-numeric:tabular-nums}
.gl-strength .gl-bar{display:flex;flex-wrap:wrap;gap:.3rem 1.5rem;align-items:baseline;
 justify-content:space-between}
.gl-strength .gl-bar>*{min-width:0;max-width:100%}
.gl-strength select{font:inherit;color:inherit;background:none;border:1px solid #8888;
 border-radius:4px;padding:.1rem .3rem;max-width:100%}
.gl-strength option{color:#111;background:#fff}
.gl-strength output{font-weight:650;padding:0}
.gl-strength input{display:block;width:100%;height:1.8rem;margin:.2rem 0 0;padding:0;border:0;
 cursor:pointer;accent-color:#1787a0}
.gl-strength .gl-ticks{display:flex;justify-content:space-between;padding:0 8px;font-size:.75rem;
 opacity:.8}
.gl-strength .gl-ticks span{width:0;display:flex;justify-content:center;white-space:nowrap}
.gl-strength .gl-ticks span:first-child{justify-content:start;position:relative;left:-8px}
.gl-strength .gl-ticks span:last-child{justify-content:end;position:relative;right:-8px}
.gl-strength .gl-row{display:grid;grid-template-columns:7.5rem 1fr;align-items:center;
 gap:.25rem 1rem;margin-top:.7rem}
.gl-strength .gl-row b{font-weight:600;overflow-wrap:anywhere}
.gl-strength .gl-row small{font-size:.78rem;opacity:.8;display:block}
.gl-strength .gl-images{display:grid;gap:.25rem;
 grid-template-columns:repeat(var(--columns),minmax(0,6.5rem))}
.gl-strength .gl-images span{font-size:.75rem;text-align:center;min-width:0}
.gl-strength img{display:block;width:100%;aspect-ratio:var(--shape);image-rendering:pixelated;
 box-shadow:0 0 0 1px #8884;margin:0 0 .15rem!important;padding:0!important;
 border-radius:0!important;background:none!important}
.text_html:has(>.gl-strength){background:none!important;color:inherit!important;
 padding:0!important;overflow:visible!important}
@container (max-width:34rem){
 .gl-strength .gl-row{grid-template-columns:minmax(0,1fr)}
 .gl-strength .gl-row small{display:inline;margin-left:.5em}
 .gl-strength .gl-images span{font-size:.68rem}}
@media print{.gl-strength input,.gl-strength .gl-ticks{display:none}}
"""


@dataclass(frozen=True, eq=False)
class Row:
    """One line of pictures, such as the private images or what one attack made of them.

    label: what they are, such as "Bayes".
    images: (n, C, H, W) in [0, 1], C = 1 or 3.
    scores: one number for each image, such as its PSNR in dB; None for the originals.

    Raises ValueError if one of these does not hold.
    """

    label: str
    images: Tensor | np.ndarray = field(repr=False)
    scores: Sequence[float] | Tensor | np.ndarray | None = None

    def __post_init__(self) -> None:
        named("a row", self.label)
        n = len(_pixels(self))
        if self.scores is not None and len(self.scores) != n:
            raise ValueError(
                f"row '{self.label}' has {n} images but {len(self.scores)} scores: give one score "
                "for each image, or scores=None for the originals"
            )


@dataclass(frozen=True, eq=False)
class Frame:
    """One position of the slider.

    label: the strength as the reader sees it, such as "0.1".
    rows: lines of pictures, all of the same number, so that columns compare.

    Raises ValueError if one of these does not hold.
    """

    label: str
    rows: Sequence[Row]

    def __post_init__(self) -> None:
        named("a frame", self.label)
        if not self.rows:
            raise ValueError(f"frame '{self.label}' has no rows: give it at least one Row")
        counts = {row.label: len(row.images) for row in self.rows}
        if len(set(counts.values())) > 1:
            raise ValueError(
                f"frame '{self.label}' has rows of different lengths {counts}: show the same "
                "images in every row"
            )


def render(frame: Frame, unit: str) -> list[str]:
    """The HTML of each row; it wants STYLE and, around it, an element of class gl-strength."""
    return [_row(row, escape(unit)) for row in frame.rows]


def spoken(frame: Frame, name: str, unit: str) -> str:
    """A frame in words, such as "noise scale 0.1: L2 14.6 dB, Bayes 19.8 dB"."""
    scored = [(row.label, _mean(row)) for row in frame.rows if row.scores is not None]
    means = ", ".join(f"{label} {mean} {unit}" for label, mean in scored)
    return f"{name} {frame.label}" + (f": {means}" if means else "")


def png(pixels: np.ndarray) -> bytes:
    """One image of uint8, (H, W) or (H, W, 3), as a PNG file at its own size."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png", optimize=True)
    return file.getvalue()


def named(what: str, label: str) -> None:
    """Raise ValueError unless `label` is a text that is not blank."""
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"{what} has the label {label!r}: give it a text that says what it is")


def _pixels(row: Row) -> np.ndarray:
    """The row's images as uint8, (n, H, W) or (n, H, W, 3); raises ValueError if they are not."""
    images = row.images.detach().cpu() if isinstance(row.images, Tensor) else row.images
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        raise ValueError(
            f"images of row '{row.label}' have shape {images.shape}: they must be (n, C, H, W) "
            "with C = 1 or 3 and n > 0; one image x alone is x[None]"
        )
    if not (images.min() >= 0 and images.max() <= 1):  # false for NaN, too
        raise ValueError(
            f"images of row '{row.label}' reach from {images.min():.3g} to {images.max():.3g}: "
            "they must lie in [0, 1]; use images.clamp(0, 1), or divide bytes by 255"
        )
    pixels = np.rint(images.transpose(0, 2, 3, 1).astype(np.float64) * 255).astype(np.uint8)
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def _score(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else {math.inf: "∞"}.get(value, "n/a")


def _mean(row: Row) -> str:
    return _score(float(np.mean([float(score) for score in row.scores])))


def _row(row: Row, unit: str) -> str:
    pixels = _pixels(row)
    n, height, width = pixels.shape[:3]
    label = escape(row.label)
    scores = [""] * n if row.scores is None else [_score(float(s)) for s in row.scores]
    mean = "" if row.scores is None else f" <small>mean {_mean(row)} {unit}</small>"
    cells = "".join(
        _cell(image, f"{label} {i} of {n}", score, unit)
        for i, (image, score) in enumerate(zip(pixels, scores, strict=True), start=1)
    )
    columns = math.ceil(n / math.ceil(n / 10))  # at most ten in a line, lines of equal length
    style = f"--columns:{columns};--shape:{width}/{height}"
    return (
        f"<div class='gl-row'><div><b>{label}</b>{mean}</div>"
        f"<div class='gl-images' style='{style}'>{cells}</div></div>"
    )


def _cell(image: np.ndarray, what: str, score: str, unit: str) -> str:
    # Single quotes, which JSON need not escape. The theme would dim an image without dark-light.
    alt = f"{what}: {score} {unit}" if score else what
    source = f"data:image/png;base64,{base64.b64encode(png(image)).decode()}"
    return f"<span><img class='dark-light' alt='{alt}' src='{source}'>{score}</span>"
