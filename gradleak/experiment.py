"""Trials in, tidy records out: batched, resumable, one row for each reconstruction."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from gradleak import metrics, priors, records, train
from gradleak.attacks import AT_ONCE, Adversary, attack_all
from gradleak.batches import keep_blocks, mergeable
from gradleak.client import Client, ServerView
from gradleak.data import Images
from gradleak.memory import free
from gradleak.records import Plain
from gradleak.version import __version__


@dataclass(frozen=True)
class Trial:
    """An adversary against clients that hold one image each (or batch_size of them).

    labels: what a table calls it, such as defense="Gaussian", adversary="Bayes", train_step=0.
    keep: indices of the images whose reconstruction is stored as well.
    """

    client: Client
    adversary: Adversary
    images: Images
    labels: Mapping[str, Plain]
    restarts: int = 1
    seed: int = 0
    keep: Sequence[int] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        for source in priors.sources(self.adversary.prior):
            source.refuse(self.images)

    def parameters(self) -> dict[str, Plain]:
        """Everything that tells this trial from another, as plain values."""
        a = self.adversary
        return {
            "dataset": self.images.name,
            "split": self.images.split,
            **self.labels,
            "true_defense": repr(self.client.defense),
            "transform": repr(self.client.transform),
            "belief": repr(a.belief),
            "prior": repr(a.prior),
            "optimizer": repr(a.optimizer),
            "temperature": float(a.temperature),
            "ball": repr(a.ball),
            "restarts": self.restarts,
            "seed": self.seed,
        }

    def row_id(self, index: int) -> str:
        """The name of the row of one image, a digest of the trial's parameters and the index."""
        return digest([self.parameters(), index])


def grid(**axes: Iterable[Any]) -> list[dict[str, Any]]:
    """Every combination: grid(a=[1, 2], b=[3]) is [{'a': 1, 'b': 3}, {'a': 2, 'b': 3}]."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def device(name: str = "auto") -> torch.device:
    """`cpu`, `cuda`, or the better of those present for `auto`."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


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
            records.write_facts(path, on or device(), command=command, seconds=seconds, **what)
    records.mark_used(path, ids)
    return records.read(path).set_index("id").loc[ids].reset_index()


def digest(what: Any) -> str:
    """The name of a row: a digest of what tells it from others."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


def _complete(trials: Sequence[Trial], path: Path, what: dict[str, Plain], command: str) -> None:
    """Compute and append the rows that the file lacks."""
    keep_blocks()
    done = records.begin(path, **what)
    seconds = float(records.read(path)["seconds"].sum()) if done else 0.0
    device = next(trials[0].client.model.parameters()).device
    batches = list(_batches(trials, done, records.stored(path)))
    quiet = bool(os.environ.get("GRADLEAK_STATIC")) or None  # None: only on a terminal
    transforming = any(t.client.transform is not None for t in trials)
    for batch in tqdm(batches, desc=path.stem, unit="batch", delay=2, disable=quiet):
        rows, kept = _compute(batch, transforming)
        rows = [row for row in rows if row["id"] not in done]
        records.append(path, rows, kept)
        seconds += sum(row["seconds"] for row in rows)
        records.write_facts(path, device, command=command, seconds=round(seconds, 1), **what)


Part = tuple[Trial, Images]


def _batches(trials: Sequence[Trial], done: set[str], stored: set[str]) -> Iterator[list[Part]]:
    """Missing work, in batches that can be computed together: what an interruption can lose.

    A row whose reconstruction is to be kept and was not stored is missing, too.
    """
    device = next(trials[0].client.model.parameters()).device
    groups: list[list[Trial]] = []
    for trial in trials:
        for group in groups:
            if _together(group[0], trial):
                group.append(trial)
                break
        else:
            groups.append([trial])
    whole = done & stored
    for group in groups:
        work = [(t, k) for t in group for k, i in enumerate(t.images.index)
                if t.row_id(i) not in (whole if i in t.keep else done)]  # fmt: skip
        step = _at_once(group[0], device)
        for start in range(0, len(work), step):
            part = itertools.groupby(work[start : start + step], key=lambda w: id(w[0]))
            yield [(items[0][0], items[0][0].images.take([k for _, k in items]))
                   for items in (list(g) for _, g in part)]  # fmt: skip


def _at_once(trial: Trial, device: torch.device) -> int:
    """How many images of such trials a batch takes: no more than whose released gradients fit."""
    parameters = [p for p in trial.client.model.parameters() if p.requires_grad]
    released = sum(p.numel() * p.element_size() for p in parameters)
    fit = free(device) // (4 * released)  # the true gradient, its noise, their sum, and a copy
    return max(1, min(AT_ONCE.get(device.type, 64) // trial.restarts, fit))


def _together(a: Trial, b: Trial) -> bool:
    same = (a.restarts, a.seed, a.images.shape) == (b.restarts, b.seed, b.images.shape)
    return same and mergeable([a.adversary, b.adversary])


def _key(client: Client) -> Any:
    """What equal clients share; a defense of one's own need not be hashable."""
    try:
        hash(client)
    except TypeError:
        return id(client)
    return client


def _compute(
    batch: list[Part], transforming: bool
) -> tuple[list[dict[str, Plain]], dict[str, np.ndarray]]:
    """The rows of a batch of attacks and the reconstructions to keep, by row id."""
    trial = batch[0][0]
    views: dict[Any, ServerView] = {}  # trials that attack the same release share it
    for t, part in batch:
        if (_key(t.client), part.index) not in views:
            view = t.client.release(part.x, part.y, seed=t.seed, key=part.index)
            views[_key(t.client), part.index] = view
    attacks = [(t.adversary, views[_key(t.client), part.index]) for t, part in batch]
    found = attack_all(attacks, restarts=trial.restarts, seed=trial.seed)
    rows, kept = [], {}
    for (t, part), result in zip(batch, found, strict=True):
        # What a network sees besides an image, the transform leaves out.
        image = getattr(t.client.transform, "image", lambda seen: seen)
        x_hat = image(result.x.detach().float().cpu())
        seen = image(t.client.transformed(part.x, seed=t.seed, key=part.index))
        scores = metrics.scores(x_hat, seen)
        if transforming:
            private = metrics.scores(x_hat, part.x)
            scores |= {f"{name}_x": private[name] for name in ("psnr", "ssim")}
        for k, index in enumerate(part.index):
            row = {"id": t.row_id(index), **t.parameters(), "index": index}
            row |= {name: values[k].item() for name, values in scores.items()}
            row["log_posterior"] = result.log_posterior[k].item()
            row["seconds"] = round(result.seconds / len(part), 4)
            row |= {"device": result.x.device.type, "version": __version__}
            rows.append(row)
            if index in t.keep:
                kept[row["id"]] = records.pixels(x_hat[k])
    return rows, kept
