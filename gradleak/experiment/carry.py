"""Committed rows of an older layout under the names that they have now: once, by `gradleak carry`.

The old rows are found by their columns. Of each trial three are computed anew; where they agree
with the old ones, the trial's other rows are believed, too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from tqdm import tqdm

from gradleak.experiment.batches import batches, compute
from gradleak.experiment.exported import Exported
from gradleak.experiment.records import Plain, Records
from gradleak.experiment.trials import Trial

ASKED = "GRADLEAK_CARRY"  # set by the command for the run of a chapter
# In dB. A climb lets rounding grow, most where there is hardly any noise (book/gotchas.md).
MEDIAN, ONE, NEARLY_NO_NOISE = 0.5, 1.5, 4.0
HOW = (
    f"rows of an older layout: three of each cell were computed again and agreed within {MEDIAN} dB"
)

Found = dict[int, pd.Series]
"""The old rows of a trial by the index of their image."""


def carry(trials: Sequence[Trial], records: Records) -> None:
    """Add old rows of these trials to the records, where they are asked for and hold."""
    if not (os.environ.get(ASKED) and records.committed):
        return
    export = Exported(records.committed / f"{records.name}.csv")
    if not export.path.exists() or "names" in export.facts():
        return
    done, _ = records.have([t.row_id(i) for t in trials for i in t.images.index])
    cells = [(trial, {i: row for i, row in found.items() if trial.row_id(i) not in done})
             for trial, found in _matched(trials, export.read())]  # fmt: skip
    cells = [(trial, found) for trial, found in cells if found]
    if not cells:
        return
    again = _computed([trial.images.take(_three(trial, found)) for trial, found in cells], cells)
    facts, old = export.facts(), export.pictures()
    made = {k: facts[k] for k in ("version", "date", "hardware", "torch", "python")}
    failed = 0
    for trial, found in cells:
        apart = [abs(again[trial.row_id(i)] - row.psnr) for i, row in found.items()
                 if trial.row_id(i) in again]  # fmt: skip
        if np.median(apart) >= MEDIAN or max(apart) >= _limit(trial):
            failed += 1
            continue
        after = list(next(iter(found.values())).index)
        after = after[after.index("index") + 1 :]
        rows = {trial.row_id(i): row[after].dropna().to_dict() for i, row in found.items()}
        kept = {trial.row_id(i): old[row.id] for i, row in found.items() if row.id in old}
        records.add(rows, kept, {**made, "carried": HOW})
    every = [abs(again[t.row_id(i)] - row.psnr) for t, found in cells
             for i, row in found.items() if t.row_id(i) in again]  # fmt: skip
    with (records.folder / "carried.txt").open("a") as log:
        log.write(
            f"{records.name}: {len(cells) - failed} of {len(cells)} cells carried over; "
            f"{len(every)} rows computed again, {np.median(every):.3f} dB apart in the median, "
            f"{max(every):.2f} at most\n"
        )


def _matched(trials: Sequence[Trial], table: pd.DataFrame) -> list[tuple[Trial, Found]]:
    told = [name for name in trials[0].parameters() if name in table]
    old: dict[tuple[str, ...], Found] = {}
    for key, (_, row) in zip(table[told].itertuples(index=False), table.iterrows(), strict=True):
        old.setdefault(tuple(map(_text, key)), {})[int(row["index"])] = row
    found = []
    for trial in trials:
        known: Mapping[str, Plain] = trial.parameters()
        rows = old.get(tuple(_text(known[name]) for name in told), {})
        found.append((trial, {i: rows[i] for i in trial.images.index if i in rows}))
    return found


def _text(value: Plain) -> str:
    if isinstance(value, float | np.floating):
        return "None" if np.isnan(value) else f"{value:.12g}"
    return str(value)


def _three(trial: Trial, found: Found) -> list[int]:
    places = [k for k, i in enumerate(trial.images.index) if i in found]
    return sorted({places[0], places[len(places) // 2], places[-1]})


def _computed(parts: Sequence, cells: Sequence[tuple[Trial, Found]]) -> dict[str, float]:
    """PSNR of some images of each trial, by row id."""
    some = [replace(t, images=part, keep=()) for (t, _), part in zip(cells, parts, strict=True)]
    transforming = any(t.client.transform is not None for t in some)
    psnr = {}
    for batch in tqdm(list(batches(some, set(), set())), desc="computed again", delay=2):
        rows, _ = compute(batch, transforming)
        psnr |= {row["id"]: row["psnr"] for row in rows}
    return psnr


def _limit(trial: Trial) -> float:
    scale = trial.labels.get("scale", 1.0)
    noisy = "Noise(" in repr(trial.client.defense) and "precision" not in trial.labels
    return ONE if noisy and scale >= 0.05 else NEARLY_NO_NOISE
