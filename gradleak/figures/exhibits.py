"""What chapters make of records: tables of means and differences, rows of pictures."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure

from gradleak import metrics
from gradleak.data import Images
from gradleak.experiment import Exported, Records
from gradleak.figures import plot
from gradleak.figures.html import Frame, Row
from gradleak.metrics import Interval, Paired, interval, paired, share

Table = dict[str, dict[Any, Interval]]
Pairs = dict[str, dict[Any, Paired]]
Arms = Mapping[str, pd.DataFrame]


def means(table: pd.DataFrame, rows: str, columns: str, value: str = "psnr") -> Table:
    """The mean of a value with its interval, for each pair of two columns of the records.

    {value of `rows`: {value of `columns`: interval}}, in the order in which they come. Of a value
    that is true or false its share.
    """
    found: Table = {}
    for (row, column), part in table.groupby([rows, columns], sort=False, observed=True):
        summary = share if part[value].dtype == bool else interval
        found.setdefault(row, {})[column] = summary(part[value])
    return found


def compared(table: pd.DataFrame, rows: str, columns: str, against: str) -> Pairs:
    """PSNR of each row minus the row `against`, image by image, for each column where both are.

    Raises ValueError if the two were not measured on the same images.
    """
    return _pairs(table, rows, columns, against, "{row} − {against}", paired)


def ahead(table: pd.DataFrame, rows: str, columns: str, first: str) -> Pairs:
    """The other way round: the row `first` minus each other, for claims that it is ahead."""
    return _pairs(
        table,
        rows,
        columns,
        first,
        "{against} − {row}",
        lambda values, other: paired(other, values),
    )


def tables(
    rows: pd.DataFrame,
    by: str,
    across: str,
    against: str,
    *,
    floor: float | None = None,
    ssim: bool = False,
) -> Pairs:
    """Show means of PSNR, and below them each row minus the row `against`; return those.

    ssim: show its means as well, last.
    """
    from IPython.display import display

    pairs = compared(rows, by, across, against)
    display(plot.table(means(rows, by, across), floor=floor), plot.differences(pairs))
    if ssim:
        alike = means(rows, by, across, "ssim")
        display(plot.table({f"{name}, SSIM": v for name, v in alike.items()}, digits=2))
    return pairs


def memory(
    rows: pd.DataFrame, private: Images, seen: Images, records: Records | Exported, along: str
) -> pd.DataFrame:
    """Memory or inversion? For each value of a column `along`, what looking up would reach.

    PSNR to the private image in dB of the reconstructions and of the image nearest to each among
    those `seen`, and the share of reconstructions that are nearer to the private image.
    """
    table = {}
    for at, part in rows.groupby(along, sort=False):
        x = records.images(_of(private, part).id)
        known = seen.x[metrics.nearest(x, seen.x)]
        nearer = metrics.mse(x, private.x) < metrics.mse(x, known)
        table[at] = {
            "reconstruction": f"{metrics.psnr(x, private.x).mean():.1f}",
            "nearest training image": f"{metrics.psnr(known, private.x).mean():.1f}",
            "nearer to the private image": f"{nearer.float().mean():.2f}",
        }
    return pd.DataFrame(table).T


def arms(rows: pd.DataFrame, by: str = "adversary", **same: Any) -> dict[str, pd.DataFrame]:
    """The rows by the values of one column, of those whose other columns are the `same`."""
    for column, value in same.items():
        rows = rows[rows[column] == value]
    return dict(tuple(rows.groupby(by, sort=False, observed=True)))


def gallery(private: Images, shown: Arms, records: Records | Exported) -> Figure:
    """The private images, and below them what the records kept of each arm."""
    rows = frame("gallery", private, shown, records).rows
    scores = [torch.tensor(row.scores) for row in rows[1:]]
    labels = ["private $x$", *shown]
    return plot.images(*(row.images for row in rows), labels=labels, scores=scores)


def frame(label: str, private: Images, shown: Arms, records: Records | Exported) -> Frame:
    """The same for one position of a slider."""
    rows = [found(name, _of(private, rows), records) for name, rows in shown.items()]
    return Frame(label, (Row("private x", private.x), *rows))


def found(label: str, rows: pd.DataFrame, records: Records | Exported) -> Row:
    """What an attack found and the records kept, with its scores, as a line of a slider."""
    return Row(label, records.images(rows.id), rows.psnr.tolist())


def frames(
    private: Images, rows: pd.DataFrame, records: Records | Exported, along: str
) -> list[Frame]:
    """The same by adversary for each value of a number `along`, in the order in which they come."""
    parts = rows.groupby(along, sort=False)
    return [frame(f"{value:g}", private, arms(part), records) for value, part in parts]


def _of(private: Images, rows: pd.DataFrame) -> pd.DataFrame:
    """The row of each private image, in their order."""
    return rows.set_index("index").loc[list(private.index)].reset_index()


def _pairs(
    table: pd.DataFrame, rows: str, columns: str, against: str, title: str, pair: Callable
) -> Pairs:
    """{title: {column: pair(a row's values, those of the row `against` on the same images)}}."""
    found: Pairs = {}
    for column, part in table.groupby(columns, sort=False, observed=True):
        by_row = {name: p.set_index("index").psnr for name, p in part.groupby(rows, sort=False)}
        other = by_row.pop(against, None)
        for name, values in by_row.items() if other is not None else ():
            if set(values.index) != set(other.index):
                raise ValueError(f"{name} and {against} were not measured on the same images")
            row = found.setdefault(title.format(row=name, against=against), {})
            row[column] = pair(values, other.loc[values.index])
    return found
