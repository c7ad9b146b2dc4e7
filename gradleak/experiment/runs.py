"""Trials in, tidy records out: batched, resumable, one row for each reconstruction."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from gradleak.device import keep_blocks, named
from gradleak.experiment.batches import batches, compute
from gradleak.experiment.carry import carry
from gradleak.experiment.exported import made
from gradleak.experiment.records import Plain, Records
from gradleak.experiment.trials import Trial, check_labels
from gradleak.identity import digest
from gradleak.scales import check_kind, refuse


def run(trials: Sequence[Trial], records: Records, command: str = "") -> pd.DataFrame:
    """Compute the rows that are not there yet; return those of these trials.

    Reconstructions are scored against what the network saw. Where any of the clients transforms
    its images, the columns psnr_x and ssim_x score them against the private images as well.

    Rows are kept after each batch of attacks, so an interrupted run continues where it was, and a
    finished one costs nothing; trials that differ in their labels only are computed once. command:
    how to run it again, kept with the facts. Raises ValueError for trials of several data sets,
    which want records each.
    """
    _check(trials, records)
    trials = [replace(t) for t in trials]  # named anew: a network may have been trained since
    datasets = {t.images.name for t in trials}
    if len(datasets) != 1:
        raise ValueError(f"records are of one data set, these trials of {sorted(datasets)}")
    keep_blocks()
    asked = [(t.row_id(i), {**told, "index": i})
             for t in trials for told in [t.parameters()] for i in t.images.index]  # fmt: skip
    keep = {t.row_id(i) for t in trials for i in t.images.index if i in t.keep}
    records.ask(asked, command)
    carry(trials, records)
    work = list(batches(trials, records.missing((name for name, _ in asked), keep)))
    for batch in tqdm(work, desc=records.name, unit="batch", delay=2, disable=_quiet()):
        device = next(batch[0][0].client.model.parameters()).device
        records.add(*compute(batch, keep), made(device))
    return records.rows(asked)


def measured(
    cells: Sequence[tuple[Mapping[str, Plain], Any, Callable[[], Mapping[str, Plain]]]],
    records: Records,
    command: str = "",
    on: torch.device | None = None,
) -> pd.DataFrame:
    """What functions return: one row for each, as `run` keeps them.

    cells: (labels, what decides, function that returns the other columns); equal ones have one row,
    and one whose row is there is not called. A row is named by its labels and by what decides
    besides: networks, images, plain values, or several of them; () for nothing. on: where they
    compute, for the facts; None: the better device of those present.
    """
    check_kind("records", records, Records, "gradleak.experiment.Records(folder, name)")
    check_kind("cells", cells, (list, tuple))
    for cell in cells:
        if not (isinstance(cell, tuple | list) and len(cell) == 3 and callable(cell[2])):
            refuse("a cell", "(labels, what decides, function)", cell, "what decides may be ()")
        check_labels(cell[0], {"id", "seconds"})
    each = {digest(dict(labels), decides): (dict(labels), find) for labels, decides, find in cells}
    asked = [(name, labels) for name, (labels, _) in each.items()]
    records.ask(asked, command)
    missing = records.missing(each)
    work = {name: find for name, (_, find) in each.items() if name in missing}
    for name, find in tqdm(work.items(), desc=records.name, delay=2, disable=_quiet()):
        begin = time.perf_counter()
        found = find()
        if not isinstance(found, Mapping):
            raise ValueError(f"{find!r:.99} must return a dict, column -> value, got {found!r:.99}")
        found = {k: v.item() if getattr(v, "shape", None) == () else v for k, v in found.items()}
        unknown = {k for k, v in found.items() if isinstance(v, float) and v != v}
        check_labels({k: v for k, v in found.items() if k not in unknown}, ())
        if found.keys() & {"id", "seconds", *each[name][0]}:
            raise ValueError(
                f"what is found, {', '.join(found)}, is called as a label or id, seconds"
            )
        found["seconds"] = round(time.perf_counter() - begin, 4)
        records.add({name: found}, {}, made(on or named()))
    return records.rows(asked)


def _check(trials: object, records: object) -> None:
    check_kind("trials", trials, (list, tuple), "one alone: [trial]")
    for trial in trials:
        check_kind("trials", trial, Trial)
    check_kind("records", records, Records, "gradleak.experiment.Records(folder, name)")


def _quiet() -> bool | None:
    return bool(os.environ.get("GRADLEAK_STATIC")) or None  # None: only on a terminal
