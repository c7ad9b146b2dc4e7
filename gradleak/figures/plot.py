"""The figures that more than one page shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from gradleak.metrics import Interval, Paired, holm

# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")


def images(*rows: Tensor, labels: Sequence[str] = (), scores: Sequence[Tensor] = ()) -> Figure:
    """Rows of pictures, each (n, C, H, W) in [0, 1].

    labels: one for each row. scores: one tensor (n,) in dB for each row but the first, written
    under its pictures.
    """
    if labels and len(labels) != len(rows):
        raise ValueError(f"{len(rows)} rows but {len(labels)} labels")
    n = max(len(row) for row in rows)
    height = 1.12 if scores else 1.0
    size = min(1.0, 8.5 / n)
    figure, axes = plt.subplots(
        len(rows),
        n,
        figsize=(size * n + 1.2, size * height * len(rows)),
        squeeze=False,
        layout="constrained",
    )
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    for r, row in enumerate(rows):
        for axis in axes[r]:
            axis.axis("off")
        for axis, image in zip(axes[r], row.detach().cpu().clamp(0, 1), strict=False):
            axis.imshow(image.permute(1, 2, 0).numpy(), cmap="gray", vmin=0, vmax=1)
        if labels:
            axes[r, 0].text(
                -0.15, 0.5, labels[r], ha="right", va="center", transform=axes[r, 0].transAxes
            )
        if scores and r:
            for axis, score in zip(axes[r], scores[r - 1].tolist(), strict=False):
                axis.set_title(f"{score:.1f}", fontsize=8, y=-0.02, va="top", pad=0)
    return _done(figure)


def intervals(
    groups: Mapping[str, Mapping[str, Interval]],
    *,
    unit: str = "PSNR (dB)",
    floor: float | None = None,
) -> Figure:
    """Means with their intervals: one block for each group, one dot for each name in it.

    floor: drawn as a dashed line, what can be had without looking at any gradient.
    """
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    figure, axis = plt.subplots(figsize=(7.2, 0.8 + 0.62 * len(groups)), layout="constrained")
    offsets = np.linspace(-0.27, 0.27, len(names)) if len(names) > 1 else [0.0]
    for k, name in enumerate(names):
        rows = [(i, g[name]) for i, g in enumerate(groups.values()) if name in g]
        mean = np.array([v.mean for _, v in rows])
        ends = np.abs(np.array([(v.low, v.high) for _, v in rows]).T - mean)
        place = [i + offsets[k] for i, _ in rows]
        style = {"fmt": "o", "markersize": 5, "capsize": 2, "linewidth": 1.5}
        axis.errorbar(mean, place, xerr=ends, label=name, color=COLORS[k], **style)
    if floor is not None:
        axis.axvline(floor, color="0.4", linestyle="--", linewidth=1, label="data-free floor")
    axis.set_yticks(range(len(groups)), list(groups))
    axis.invert_yaxis()
    axis.set_xlabel(unit)
    axis.grid(axis="x", color="0.9")
    axis.set_axisbelow(True)
    _legend_right(axis)
    return _done(figure)


def curves(
    lines: Mapping[str, Mapping[float, Interval]],
    *,
    across: str,
    unit: str = "PSNR (dB)",
    floor: float | None = None,
    log: bool = True,
) -> Figure:
    """Means with interval bands against a quantity, one line for each name."""
    figure, axis = plt.subplots(figsize=(7.2, 3.2), layout="constrained")
    _lines(axis, lines, floor, log)
    axis.set_xlabel(across)
    axis.set_ylabel(unit)
    _legend_right(axis)
    return _done(figure)


def panels(
    groups: Mapping[str, Mapping[str, Mapping[float | str, Interval]]],
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
    figure, axes = plt.subplots(
        rows, 2, figsize=(7.2, 2.3 * rows), sharex=True, sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    names = list(dict.fromkeys(name for lines in groups.values() for name in lines))
    for axis, (title, lines) in zip(axes.flat, groups.items(), strict=False):
        _lines(axis, lines, floor, log, names)
        axis.set_title(title, fontsize=10)
    last = axes.flat[len(groups) :]
    for axis in last:
        axis.axis("off")
    handles = {}
    for axis in axes.flat[: len(groups)]:
        handles |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    handles = {name: handles[name] for name in sorted(handles, key=[*names, *handles].index)}
    legend = {"loc": "center"} if len(last) else {"loc": "outside lower center", "ncols": 4}
    (last[0] if len(last) else figure).legend(
        handles.values(), handles, frameon=False, fontsize=9, **legend
    )
    figure.supxlabel(across, fontsize=10)
    figure.supylabel(unit, fontsize=10)
    return _done(figure)


def tradeoff(
    lines: Mapping[str, Mapping[float, tuple[Interval, float]]],
    *,
    unit: str = "PSNR of the best attack (dB)",
    floor: float | None = None,
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
            axis.annotate(
                f"{strength:g}", (x, y), (3, 3), textcoords="offset points", fontsize=7,
                color=COLORS[k],
            )  # fmt: skip
    if floor is not None:
        axis.axvline(floor, color="0.4", linestyle="--", linewidth=1, label="data-free floor")
    axis.set_xlabel(unit)
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

    def cell(value: Interval, mark: str = "") -> str:
        low, mean, high = (f"{v:.{digits}f}" for v in (value.low, value.mean, value.high))
        return f"{mean}{mark}<br><small>[{low}, {high}]</small>"

    rows = {}
    for name, group in groups.items():
        failed = {k: floor is not None and v.mean < floor for k, v in group.items()}
        rows[name] = {k: cell(v, " †" if failed[k] else "") for k, v in group.items()}
        rows[name] |= {k: cell(v) for k, v in (differences or {}).get(name, {}).items()}
    return _html(rows)


def differences(groups: Mapping[str, Mapping[str, Paired]]) -> HTML:
    """Paired differences with their intervals below, one row for each group.

    A star marks what is not zero at 5 % after Holm's correction for the number of cells.
    """
    cells = [pair for group in groups.values() for pair in group.values()]
    stars = iter(" *" if p < 0.05 else "" for p in holm([pair.p for pair in cells]))

    def cell(value: Interval, mark: str) -> str:
        return f"{value.mean:+.1f}{mark}<br><small>[{value.low:+.1f}, {value.high:+.1f}]</small>"

    return _html(
        {name: {k: cell(pair.difference, next(stars)) for k, pair in group.items()}
         for name, group in groups.items()}
    )  # fmt: skip


def _html(rows: Mapping[str, Mapping[str, str]]) -> HTML:
    return HTML(pd.DataFrame(rows).T.fillna("").to_html(escape=False))


def _lines(
    axis: Axes,
    lines: Mapping[str, Mapping[float | str, Interval]],
    floor: float | None,
    log: bool,
    names: Sequence[str] = (),
) -> None:
    """Lines with bands; the place of its name in `names` gives a line its colour, first on top."""
    names = list(names or lines)
    for name, points in lines.items():
        place = names.index(name)
        at, color = list(points), COLORS[place]
        style = {"color": color, "label": name, "ms": 4, "zorder": 3 - place / len(names)}
        axis.plot(at, [v.mean for v in points.values()], "o-", **style)
        low, high = ([getattr(v, end) for v in points.values()] for end in ("low", "high"))
        axis.fill_between(at, low, high, color=color, alpha=0.2, linewidth=0)
    if floor is not None:
        axis.axhline(floor, color="0.4", linestyle="--", linewidth=1, label="data-free floor")
    if log:
        axis.set_xscale("log")
    axis.grid(color="0.9")


def _legend_right(axis: Axes) -> None:
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _done(figure: Figure) -> Figure:
    # Closed figures still show as the value of a cell, and then only there.
    plt.close(figure)
    return figure
