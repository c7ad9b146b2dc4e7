"""The figures that more than one page shows."""

import math
from collections.abc import Mapping, Sequence
from html import escape

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from gradleak.metrics import Interval, Paired, holm
from gradleak.scales import check_kind

Lines = Mapping[str, Mapping[float | str, Interval]]

# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
FLOOR = {"color": "0.4", "linestyle": "--", "linewidth": 1, "label": "data-free floor"}


def images(*rows: Tensor, labels: Sequence[str] = (), scores: Sequence[Tensor] = ()) -> Figure:
    """Rows of pictures, each (n, C, H, W) in [0, 1]; ValueError for other data.

    labels: one for each row. scores: one tensor (n,) in dB for each row but the first, written
    under its pictures.
    """
    check_kind("labels", labels, Sequence, "one text a row")
    check_kind("scores", scores, Sequence, "one tensor for each row but the first")
    for values in (*rows, *scores):
        check_kind("a row of pictures, or of scores,", values, Tensor, "use torch.as_tensor(...)")
    named, scored = len(labels) in (0, len(rows)), len(scores) in (0, len(rows) - 1)
    if not (rows and named and scored):
        raise ValueError(
            f"{len(rows)} rows but {len(labels)} labels and scores of {len(scores)}: give at least "
            "one row, a label for each, and scores for each but the first"
        )
    shapes = [tuple(row.shape) for row in rows if row.ndim != 4 or row.shape[1] not in (1, 3)]
    if shapes:
        raise ValueError(
            f"pictures are (n, C, H, W) with C = 1 (grey) or 3 (colour), not {shapes[0]}: show "
            "other data in plots of your own"
        )
    n = max(map(len, rows))
    side = min(1.0, 8.5 / n)
    size = (side * n + 1.2, side * len(rows) * (1.12 if scores else 1.0))
    figure, axes = plt.subplots(len(rows), n, figsize=size, squeeze=False, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    for axis in axes.flat:
        axis.axis("off")
    for r, row in enumerate(rows):
        for axis, image in zip(axes[r], row.detach().cpu().clamp(0, 1), strict=False):
            axis.imshow(image.permute(1, 2, 0).numpy(), cmap="gray", vmin=0, vmax=1)
        if labels:
            style = {"ha": "right", "va": "center", "transform": axes[r, 0].transAxes}
            axes[r, 0].text(-0.15, 0.5, labels[r], **style)
        if scores and r:
            for axis, score in zip(axes[r], scores[r - 1].tolist(), strict=False):
                axis.set_title(f"{score:.1f}", fontsize=8, y=-0.02, va="top", pad=0)
    return _done(figure)


def curves(
    lines: Lines,
    *,
    across: str,
    unit: str = "PSNR (dB)",
    floor: float | None = None,
    log: bool = True,
) -> Figure:
    """Means with interval bands against a quantity, one line for each name."""
    figure, axis = plt.subplots(figsize=(7.2, 3.2), layout="constrained")
    _lines(axis, lines, list(lines), floor, log)
    axis.set_xlabel(across)
    axis.set_ylabel(unit)
    _legend_right(axis)
    return _done(figure)


def panels(
    groups: Mapping[str, Lines],
    *,
    across: str,
    unit: str = "PSNR (dB)",
    floor: float | None = None,
    log: bool = True,
) -> Figure:
    """The same in a panel for each group, two in a row, with common axes and one legend.

    Quantities that are strings stand at equal distances; give log=False with them.
    """
    rows = math.ceil(len(groups) / 2)
    style = {"sharex": True, "sharey": True, "squeeze": False, "layout": "constrained"}
    figure, axes = plt.subplots(rows, 2, figsize=(7.2, 2.3 * rows), **style)
    names = list(dict.fromkeys(name for lines in groups.values() for name in lines))
    for axis, (title, lines) in zip(axes.flat, groups.items(), strict=False):
        _lines(axis, lines, names, floor, log)
        axis.set_title(title, fontsize=10)
    handles = {}
    for axis in axes.flat:
        handles |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    names = sorted(handles, key=[*names, *handles].index)
    legend = ([handles[name] for name in names], names)
    if len(groups) % 2:  # the last panel is free
        axes[-1, 1].axis("off")
        axes[-1, 1].legend(*legend, loc="center", frameon=False, fontsize=9)
    else:
        figure.legend(*legend, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.supxlabel(across, fontsize=10)
    figure.supylabel(unit, fontsize=10)
    return _done(figure)


def tradeoff(
    lines: Mapping[str, Mapping[float, tuple[Interval, float]]], *, floor: float | None = None
) -> Figure:
    """What a defense hides against what it costs: leakage across, test accuracy upwards.

    lines: for each defense, strength -> (leakage, accuracy between 0 and 1). The strength is
    written beside its point. Good defenses are above and to the left.
    """
    figure, axis = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
    for k, (name, points) in enumerate(lines.items()):
        leakage, accuracy = zip(*points.values(), strict=True)
        mean = np.array([v.mean for v in leakage])
        ends = np.abs(np.array([(v.low, v.high) for v in leakage]).T - mean)
        style = {"fmt": "o-", "markersize": 4, "linewidth": 1.2, "elinewidth": 1}
        axis.errorbar(mean, accuracy, xerr=ends, label=name, color=COLORS[k], **style)
        for strength, x, y in zip(points, mean, accuracy, strict=True):
            style = {"textcoords": "offset points", "fontsize": 7, "color": COLORS[k]}
            axis.annotate(f"{strength:g}", (x, y), (3, 3), **style)
    if floor is not None:
        axis.axvline(floor, **FLOOR)
    axis.set_xlabel("PSNR of the best attack (dB)")
    axis.set_ylabel("test accuracy")
    axis.grid(color="0.9")
    _legend_right(axis)
    return _done(figure)


def table(
    groups: Mapping[str, Mapping[str, Interval]],
    differences: Mapping[str, Mapping[str, Interval]] | None = None,
    *,
    floor: float | None = None,
    digits: int = 1,
) -> HTML:
    """Means with their intervals below, one row for each group; differences stand to the right.

    A mean below the data-free floor gets a dagger: it shows a failed attack, not a good defense.
    """
    spec, floor = f".{digits}f", -math.inf if floor is None else floor
    rows = {}
    for name, group in groups.items():
        rows[name] = {k: _cell(v, spec, " †" * (v.mean < floor)) for k, v in group.items()}
        rows[name] |= {k: _cell(v, spec) for k, v in (differences or {}).get(name, {}).items()}
    return _html(rows)


def differences(groups: Mapping[str, Mapping[str, Paired]]) -> HTML:
    """Paired differences with their intervals below, one row for each group.

    A star marks what is not zero at 5 % after Holm's correction for the number of cells.
    """
    corrected = iter(holm([pair.p for group in groups.values() for pair in group.values()]))
    rows = {}
    for name, group in groups.items():
        stars = {k: " *" * (next(corrected) < 0.05) for k in group}
        rows[name] = {k: _cell(pair.difference, "+.1f", stars[k]) for k, pair in group.items()}
    return _html(rows)


def _cell(value: Interval, spec: str, mark: str = "") -> str:
    low, mean, high = (format(v, spec) for v in (value.low, value.mean, value.high))
    return f"{mean}{mark}<br><small>[{low}, {high}]</small>"


def _html(rows: Mapping[str, Mapping[str, str]]) -> HTML:
    """Cells are HTML; the names of rows and columns are texts."""
    named = pd.DataFrame(rows).T.fillna("").rename(_text, axis=0).rename(_text, axis=1)
    return HTML(named.to_html(escape=False))


def _text(name: object) -> object:
    return escape(name) if isinstance(name, str) else name


def _lines(axis: Axes, lines: Lines, names: list[str], floor: float | None, log: bool) -> None:
    """Lines with bands; the place of its name in `names` gives a line its colour, first on top."""
    for name, points in lines.items():
        place = names.index(name)
        at, color = list(points), COLORS[place]
        style = {"color": color, "label": name, "ms": 4, "zorder": 3 - place / len(names)}
        axis.plot(at, [v.mean for v in points.values()], "o-", **style)
        low, high = ([getattr(v, end) for v in points.values()] for end in ("low", "high"))
        axis.fill_between(at, low, high, color=color, alpha=0.2, linewidth=0)
    if floor is not None:
        axis.axhline(floor, **FLOOR)
    if log:
        axis.set_xscale("log")
    axis.grid(color="0.9")


def _legend_right(axis: Axes) -> None:
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _done(figure: Figure) -> Figure:
    plt.close(figure)  # closed figures still show as the value of a cell, and then only there
    return figure
