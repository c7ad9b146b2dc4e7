"""Committed rows of an older layout under the names that they have now: once, by `gradleak carry`.

The old rows are found by their columns. Of each trial three are computed anew; where they agree
with the old ones, the trial's other rows are believed, too.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from gradleak.experiment.batches import batches, compute
from gradleak.experiment.exported import MADE
from gradleak.experiment.records import Records
from gradleak.experiment.trials import Trial

# In dB. A climb lets rounding grow, most where there is hardly any noise (book/gotchas.md).
MEDIAN, ONE, NEARLY_NO_NOISE = 0.5, 1.5, 4.0
HOW = (
    f"rows of an older layout: three of each cell were computed again and agreed within {MEDIAN} dB"
)


def carry(trials: Sequence[Trial], records: Records) -> None:
    """Add old rows of these trials to the records, where they are asked for and hold."""
    if not (os.environ.get("GRADLEAK_CARRY") and records.committed):
        return
    export = records.exported(records.committed)
    if not export.path.exists() or "names" in export.facts():
        return
    facts, pictures = export.facts(), export.pictures()
    missing = records.missing(t.row_id(i) for t in trials for i in t.images.index)
    cells = [(trial, rows[rows.name.isin(missing)])
             for trial, rows in _matched(trials, export.read())]  # fmt: skip
    cells = [(trial, rows) for trial, rows in cells if len(rows)]
    again = _computed(cells)
    failed = 0
    for trial, rows in cells:
        three = rows[rows.name.isin(list(again))]
        apart = (three.name.map(again) - three.psnr).abs()
        if apart.median() >= MEDIAN or apart.max() >= _limit(trial):
            failed += 1
            continue
        # A climb computed twice may end elsewhere, and a row and its picture have to be of one.
        rows = rows[rows.id.isin(list(pictures)) | ~rows["index"].isin(trial.keep)]
        after = list(rows.columns[rows.columns.get_loc("index") + 1 : -1])
        after += ["seconds"] if "seconds" not in after else []  # of answers it came first
        found = {row["name"]: row[after].dropna().to_dict() for _, row in rows.iterrows()}
        kept = {name: pictures[id] for name, id in zip(rows.name, rows.id, strict=True)
                if id in pictures}  # fmt: skip
        records.add(found, kept, {**{k: facts[k] for k in MADE}, "carried": HOW})
    with (records.folder / "carried.txt").open("a") as log:  # beside the page, not on it
        log.write(f"{records.name}: {len(cells) - failed} of {len(cells)} cells carried over\n")


def _matched(trials: Sequence[Trial], table: pd.DataFrame) -> list[tuple[Trial, pd.DataFrame]]:
    """The old rows of each trial, with the names that they have now in the last column."""
    told = [name for name in trials[0].parameters() if name in table]
    keys = pd.Series(zip(*(table[name].map(_text) for name in told), strict=True), table.index)
    old = dict(tuple(table.groupby(keys)))
    found = []
    for trial in trials:
        known = trial.parameters()
        rows = old.get(tuple(_text(known[name]) for name in told), table[:0])
        rows = rows[rows["index"].isin(trial.images.index)]
        found.append((trial, rows.assign(name=rows["index"].map(trial.row_id))))
    return found


def _text(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return "None" if np.isnan(value) else f"{value:.12g}"
    return str(value)


def _computed(cells: Sequence[tuple[Trial, pd.DataFrame]]) -> dict[str, float]:
    """PSNR of the first, the middle and the last row of each trial, by name."""
    three = {rows.name.iloc[k] for _, rows in cells for k in (0, len(rows) // 2, -1)}
    psnr: dict[str, float] = {}
    for batch in list(batches([t for t, _ in cells], three)):
        rows, _ = compute(batch)
        psnr |= {name: row["psnr"] for name, row in rows.items()}
    return psnr


def _limit(trial: Trial) -> float:
    scale = trial.labels.get("scale", 1.0)
    noisy = "Noise(" in repr(trial.client.defense) and "precision" not in trial.labels
    return ONE if noisy and scale >= 0.05 else NEARLY_NO_NOISE
