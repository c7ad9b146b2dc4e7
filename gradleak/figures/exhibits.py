"""What chapters make of records: tables of means and differences, rows of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from gradleak.data import Images
from gradleak.experiment import Exported, Records
from gradleak.figures import plot
from gradleak.figures.html import Frame, Row
from gradleak.metrics import Interval, Paired, interval, paired, psnr

Table = dict[str, dict[Any, Interval]]


def means(table: pd.DataFrame, rows: str, columns: str, value: str = "psnr") -> Table:
    """The mean of a value with its interval, for each pair of two columns of the records.

    {value of `rows`: {value of `columns`: interval}}, in the order in which they come.
    """
    found: Table = {}
    for (row, column), part in table.groupby([rows, columns], sort=False, observed=True):
        found.setdefault(row, {})[column] = interval(part[value])
    return found


def compared(
    table: pd.DataFrame, rows: str, columns: str, against: str, value: str = "psnr"
) -> dict[str, dict[Any, Paired]]:
    """Each row minus the row `against`, image by image, for each column where both are.

    Raises ValueError if the two were not measured on the same images.
    """
    found: dict[str, dict[Any, Paired]] = {}
    for column, part in table.groupby(columns, sort=False, observed=True):
        by_row = {name: p.set_index("index")[value] for name, p in part.groupby(rows, sort=False)}
        for name, values in by_row.items():
            if name == against or against not in by_row:
                continue
            other = by_row[against]
            if set(values.index) != set(other.index):
                raise ValueError(f"{name} and {against} were not measured on the same images")
            pair = paired(values, other.loc[values.index])
            found.setdefault(f"{name} − {against}", {})[column] = pair
    return found


def floors(
    x: Tensor, public: Tensor, metric: Callable[[Tensor, Tensor], Tensor] = psnr
) -> dict[str, Interval]:
    """What can be had without a gradient: mid-grey and the mean of public images (M, C, H, W)."""
    guesses = {"mid-grey": torch.full_like(x, 0.5), "mean image": public.mean(0).expand_as(x)}
    return {name: interval(metric(guess, x).tolist()) for name, guess in guesses.items()}


def committed(own: Records, folder: Path) -> Iterator[tuple[str, pd.DataFrame]]:
    """Other records of the same chapter that are committed in a folder: caption, evaluated rows.

    own: the page's records, named chapter-profile-dataset; they are left out. Those of another kind
    have names with a fourth part; of those the answers belong to the rows.
    """
    chapter = own.name.split("-")[0]
    for path in sorted(folder.glob(f"{chapter}-*-*.csv")):
        if path.stem != own.name and path.stem.count("-") == 2:
            rows, facts = Exported(path).read(), Exported(path).facts()
            answers = Exported(path.with_name(f"{path.stem}-answers.csv"))
            rows = pd.concat([rows, answers.read()]) if answers.path.exists() else rows
            rows = rows[rows.split == "test"]
            yield (
                f"**{rows['index'].nunique()} images** of {facts['dataset']}, {facts['hardware']}, "
                f"`{facts['command']}` with `{rows.optimizer.iloc[0]}`",
                rows,
            )


def gallery(
    private: Images, arms: Mapping[str, pd.DataFrame], records: Records | Exported
) -> Figure:
    """The private images, and below them what the records kept of each arm's rows."""
    arms = {name: _of(private, rows) for name, rows in arms.items()}
    return plot.images(
        private.x,
        *(records.images(rows.id) for rows in arms.values()),
        labels=["private $x$", *arms],
        scores=[torch.tensor(rows.psnr.to_numpy()) for rows in arms.values()],
    )


def frame(
    label: str,
    private: Images,
    arms: Mapping[str, pd.DataFrame],
    records: Records | Exported,
) -> Frame:
    """The same for one position of a slider."""
    arms = {name: _of(private, rows) for name, rows in arms.items()}
    shown = [Row(name, records.images(r.id), r.psnr.tolist()) for name, r in arms.items()]
    return Frame(label, (Row("private x", private.x), *shown))


def _of(private: Images, rows: pd.DataFrame) -> pd.DataFrame:
    """The row of each private image, in their order."""
    return rows.set_index("index").loc[list(private.index)].reset_index()
