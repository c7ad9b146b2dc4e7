"""Trials in, tidy records out: batched, resumable, one row for each reconstruction."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from gradleak import train
from gradleak.data import Images
from gradleak.device import keep_blocks, named
from gradleak.experiment import records
from gradleak.experiment.batches import batches, compute
from gradleak.experiment.records import Plain
from gradleak.experiment.trials import Trial
from gradleak.identity import digest
from gradleak.version import __version__


def run(trials: Sequence[Trial], path: Path | str, command: str = "") -> pd.DataFrame:
    """Compute the rows that the record file `path` (.csv) lacks; return those of these trials.

    Reconstructions are scored against what the network saw. Where any of the clients transforms
    its images, the columns psnr_x and ssim_x score them against the private images as well.

    Rows are appended after each batch of attacks, so an interrupted run continues where it was,
    and a finished one costs nothing. command: how to run it again, kept with the facts. Raises
    ValueError if the file holds records of another version of gradleak or of another data set, and
    RuntimeError while another run writes to it.
    """
    path = Path(path)
    trials = [replace(t) for t in trials]  # named anew: a network may have been trained since
    names = {t.images.name for t in trials}
    if len(names) != 1:
        raise ValueError(f"a record file holds one data set, these trials have {sorted(names)}")
    with records.only_writer(path):
        _complete(trials, path, {"dataset": names.pop(), "version": __version__}, command)
    ids = [t.row_id(i) for t in trials for i in t.images.index]
    records.mark_used(path, ids)
    return records.read(path).set_index("id").loc[ids].reset_index()


def accuracies(
    networks: Sequence[tuple[Mapping[str, Plain], Callable[[], nn.Module]]],
    images: Images,
    path: Path | str,
    command: str = "",
) -> pd.DataFrame:
    """The accuracy of networks on images: one row for each, as `run` keeps them.

    networks: (labels, function that makes the network); one whose row exists is not made again, and
    equal labels are one network.
    """

    def of(network: Callable[[], nn.Module]) -> Callable[[], dict[str, Plain]]:
        return lambda: {"accuracy": train.accuracy(network(), images)}

    what = {"dataset": images.name, "split": images.split, "images": len(images)}
    cells = [({**what, **labels}, of(network)) for labels, network in networks]
    return measured(cells, images.name, path, command)


def measured(
    cells: Sequence[tuple[Mapping[str, Plain], Callable[[], Mapping[str, Plain]]]],
    dataset: str,
    path: Path | str,
    command: str = "",
    on: torch.device | None = None,
) -> pd.DataFrame:
    """What functions return: one row for each, as `run` keeps them.

    cells: (labels, function that returns the other columns); one whose row exists is not called
    again, and equal labels are one cell. on: where they compute, for the facts; None: the better
    device of those present.
    """
    path, ids = Path(path), []
    what = {"dataset": dataset, "version": __version__}
    with records.only_writer(path):
        done = records.begin(path, **what)
        quiet = bool(os.environ.get("GRADLEAK_STATIC")) or None
        for labels, compute in tqdm(cells, desc=path.stem, delay=2, disable=quiet):
            row = {"id": digest(labels), **labels}
            if row["id"] in ids:
                continue
            ids.append(row["id"])
            if row["id"] in done:
                continue
            begin = time.perf_counter()
            row |= compute()
            row["seconds"] = round(time.perf_counter() - begin, 4)
            records.append(path, [row], {})
            seconds = round(float(records.read(path)["seconds"].sum()), 1)
            records.write_facts(path, on or named(), command=command, seconds=seconds, **what)
    records.mark_used(path, ids)
    return records.read(path).set_index("id").loc[ids].reset_index()


def _complete(trials: Sequence[Trial], path: Path, what: dict[str, Plain], command: str) -> None:
    """Compute and append the rows that the file lacks."""
    keep_blocks()
    done = records.begin(path, **what)
    seconds = float(records.read(path)["seconds"].sum()) if done else 0.0
    device = next(trials[0].client.model.parameters()).device
    work = list(batches(trials, done, records.stored(path)))
    quiet = bool(os.environ.get("GRADLEAK_STATIC")) or None  # None: only on a terminal
    transforming = any(t.client.transform is not None for t in trials)
    for batch in tqdm(work, desc=path.stem, unit="batch", delay=2, disable=quiet):
        rows, kept = compute(batch, transforming)
        rows = [row for row in rows if row["id"] not in done]
        records.append(path, rows, kept)
        seconds += sum(row["seconds"] for row in rows)
        records.write_facts(path, device, command=command, seconds=round(seconds, 1), **what)
