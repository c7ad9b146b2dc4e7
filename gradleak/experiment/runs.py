"""Trials in, tidy records out: batched, resumable, one row for each reconstruction."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from gradleak import train
from gradleak.data import Images
from gradleak.device import keep_blocks, named
from gradleak.experiment.batches import Part, batches, compute
from gradleak.experiment.carry import carry
from gradleak.experiment.exported import made
from gradleak.experiment.records import Plain, Records
from gradleak.experiment.trials import Trial
from gradleak.identity import digest


def run(trials: Sequence[Trial], records: Records, command: str = "") -> pd.DataFrame:
    """Compute the rows that are not there yet; return those of these trials.

    Reconstructions are scored against what the network saw. Where any of the clients transforms
    its images, the columns psnr_x and ssim_x score them against the private images as well.

    Rows are kept after each batch of attacks, so an interrupted run continues where it was, and a
    finished one costs nothing; trials that differ in their labels only are computed once. command:
    how to run it again, kept with the facts. Raises ValueError for trials of several data sets,
    which want records each.
    """
    trials = [replace(t) for t in trials]  # named anew: a network may have been trained since
    datasets = {t.images.name for t in trials}
    if len(datasets) != 1:
        raise ValueError(f"records are of one data set, these trials of {sorted(datasets)}")
    keep_blocks()
    asked = [(t.row_id(i), {**told, "index": i})
             for t in trials for told in [t.parameters()] for i in t.images.index]  # fmt: skip
    told = dict(reversed(asked))  # of equal computations the first one's labels, as in `_distinct`
    keep = {t.row_id(i) for t in trials for i in t.images.index if i in t.keep}
    transforming = any(t.client.transform is not None for t in trials)
    records.ask(asked, command)
    carry(trials, records)
    work = list(batches(list(_distinct(trials, keep)), *records.have(told, keep)))
    for batch in tqdm(work, desc=records.name, unit="batch", delay=2, disable=_quiet()):
        _keep(batch, told, records, transforming)
    return records.rows(asked)


def accuracies(
    networks: Sequence[tuple[Mapping[str, Plain], Any, Callable[[], nn.Module]]],
    images: Images,
    records: Records,
    command: str = "",
) -> pd.DataFrame:
    """The accuracy of networks on images: one row for each, as `run` keeps them.

    networks: (labels, what decides, function that makes the network), as in `measured`: a network
    whose row is there is not made again. What decides is the untrained network, say.
    """

    def of(network: Callable[[], nn.Module]) -> Callable[[], dict[str, Plain]]:
        return lambda: {"accuracy": train.accuracy(network(), images)}

    what = {"dataset": images.name, "split": images.split, "images": len(images)}
    shown = images.digests
    cells = [({**what, **told}, (decides, shown), of(make)) for told, decides, make in networks]
    return measured(cells, records, command)


def measured(
    cells: Sequence[tuple[Mapping[str, Plain], Any, Callable[[], Mapping[str, Plain]]]],
    records: Records,
    command: str = "",
    on: torch.device | None = None,
) -> pd.DataFrame:
    """What functions return: one row for each, as `run` keeps them.

    cells: (labels, what decides, function that returns the other columns); one whose row is there
    is not called again. A row is named by its labels and by what decides besides: networks, images,
    plain values, or several of them; () for nothing. on: where they compute, for the facts; None:
    the better device of those present.
    """
    names = [digest(dict(labels), decides) for labels, decides, _ in cells]
    asked = {name: dict(labels) for name, (labels, *_) in zip(names, cells, strict=True)}
    records.ask(list(asked.items()), command)
    done, _ = records.have(asked)
    work = {name: find for name, (*_, find) in zip(names, cells, strict=True)
            if name not in done}  # fmt: skip
    for name, find in tqdm(work.items(), desc=records.name, delay=2, disable=_quiet()):
        begin = time.perf_counter()
        found = dict(find())
        found["seconds"] = round(time.perf_counter() - begin, 4)
        records.add({name: found}, {}, made(on or named()))
    return records.rows(list(asked.items()))


def _keep(
    batch: list[Part], told: Mapping[str, Mapping[str, Plain]], records: Records, transforming: bool
) -> None:
    """Compute a batch of attacks and keep its rows and pictures."""
    rows, kept = compute(batch, transforming)
    found = {row["id"]: {k: v for k, v in row.items() if k not in {"id", *told[row["id"]]}}
             for row in rows}  # fmt: skip
    device = next(batch[0][0].client.model.parameters()).device
    records.add(found, kept, made(device))


def _distinct(trials: Sequence[Trial], keep: Collection[str]) -> Iterator[Trial]:
    """The trials, without images whose row an earlier one has; they keep what any keeps."""
    seen: set[str] = set()
    for trial in trials:
        names = [trial.row_id(i) for i in trial.images.index]
        new = [k for k, name in enumerate(names) if name not in seen]
        seen.update(names)
        if new:
            images = trial.images if len(new) == len(names) else trial.images.take(new)
            kept = [trial.images.index[k] for k in new if names[k] in keep]
            yield replace(trial, images=images, keep=kept)


def _quiet() -> bool | None:
    return bool(os.environ.get("GRADLEAK_STATIC")) or None  # None: only on a terminal
