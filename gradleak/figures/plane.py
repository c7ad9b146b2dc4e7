"""Pictures of posteriors on the unit square, with three answers to each."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from gradleak.attacks import Adam, grid
from gradleak.figures.html import Frame, Row
from gradleak.figures.plot import COLORS

MARKS = {"MAP": ("x", COLORS[1]), "posterior mean": ("o", COLORS[2]), "optimum": ("^", COLORS[0])}
SIDE = 50  # of a slider's pictures, in pixels


def planes(
    rows: Mapping[str, Mapping[str, grid.Plane]], private: Tensor, start: Tensor, delta: float
) -> Figure:
    """Densities, each in its own greys, with their answers and the way of an attack from start.

    rows: {label: {title: posterior}}. private and start: (2,). delta: the optimum's.
    """
    columns = max(len(row) for row in rows.values())
    size = (1.9 * columns, 2.15 * len(rows))
    figure, axes = plt.subplots(
        len(rows), columns, figsize=size, squeeze=False, layout="constrained"
    )
    for line, (label, row) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(label, fontsize=9)
        for axis, (title, plane) in zip(line, row.items(), strict=False):
            shades = _shades(plane.density).T.numpy()
            axis.imshow(shades, "gray", origin="lower", extent=(0, 1, 0, 1), vmin=0, vmax=1)
            way = plane.climb(start, Adam(steps=150, lr=0.02, decay=0.99))
            axis.plot(*way.T, color="0.3", lw=1, label="way of the attack")
            axis.plot(*private, "*", color="k", ms=9, label="private $x$")
            for name, at in plane.answers(delta).items():
                mark, color = MARKS[name]
                axis.plot(*at, mark, color=color, mew=2, mfc="none", label=name)
            axis.set_title(title, fontsize=9)
            axis.set(xticks=[0, 1], yticks=[0, 1])
    legend = axes[0, 0].get_legend_handles_labels()
    figure.legend(*legend, loc="outside lower center", ncols=5, frameon=False)
    plt.close(figure)
    return figure


def plane_frame(label: str, plane: grid.Plane, private: Tensor, delta: float) -> Frame:
    """One position of a slider: the density, and the mass within delta, dotted with the answers.

    Its scores are the chances of a success of MAP and of the optimum, in per cent.
    """
    answers, chances = plane.answers(delta), plane.chances(delta)
    dots = [(private, "black"), *((at, MARKS[name][1]) for name, at in answers.items())]
    pictures = torch.stack([_dotted(v, dots) for v in (plane.density, plane.mass(delta))])
    scores = [100 * chances[name] for name in ("MAP", "optimum")]
    return Frame(label, [Row("density | mass", pictures, scores)])


def _shades(values: Tensor) -> Tensor:
    """White for nothing, a grey on which marks can be seen for the most."""
    return 1 - 0.55 * values / values.max()


def _dotted(values: Tensor, dots: Sequence[tuple[Tensor, str]]) -> Tensor:
    """Values (n, n) on the square as a picture (3, SIDE, SIDE), with coloured dots."""
    values = torch.nn.functional.adaptive_avg_pool2d(values[None], SIDE)[0]
    image = _shades(values).T.flip(0).repeat(3, 1, 1)
    for (x, y), color in dots:
        column, row = int(x * SIDE), SIDE - 1 - int(y * SIDE)
        at = image[:, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        at[:] = torch.tensor(to_rgb(color))[:, None, None]
    return image
