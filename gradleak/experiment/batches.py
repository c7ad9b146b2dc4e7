"""What is computed together: many attacks of one kind in one computation."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from gradleak import metrics
from gradleak.attacks import AT_ONCE, Adversary, Reconstruction, attack_all, mergeable
from gradleak.client import Client, ServerView
from gradleak.data import Images
from gradleak.device import free
from gradleak.experiment import records
from gradleak.experiment.records import Plain
from gradleak.experiment.trials import Trial
from gradleak.version import __version__

Part = tuple[Trial, Images]


def batches(trials: Sequence[Trial], done: set[str], stored: set[str]) -> Iterator[list[Part]]:
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
    starts = trial.attack.restarts if isinstance(trial.attack, Adversary) else 1
    return max(1, min(AT_ONCE.get(device.type, 64) // starts, fit))


def _together(a: Trial, b: Trial) -> bool:
    climbs = isinstance(a.attack, Adversary) and isinstance(b.attack, Adversary)
    same = (a.seed, a.images.shape) == (b.seed, b.images.shape)
    return climbs and same and mergeable([a.attack, b.attack])


def _key(client: Client) -> Any:
    """What equal clients share; a defense of one's own need not be hashable."""
    try:
        hash(client)
    except TypeError:
        return id(client)
    return client


def compute(
    batch: list[Part], transforming: bool
) -> tuple[list[dict[str, Plain]], dict[str, np.ndarray]]:
    """The rows of a batch of attacks and the reconstructions to keep, by row id."""
    views: dict[Any, ServerView] = {}  # trials that attack the same release share it
    for t, part in batch:
        if (_key(t.client), part.index) not in views:
            view = t.client.release(part.x, part.y, seed=t.seed, key=part.index)
            views[_key(t.client), part.index] = view
    seen = [views[_key(t.client), part.index] for t, part in batch]
    found = _found([t for t, _ in batch], seen)
    rows, kept = [], {}
    for (t, part), result in zip(batch, found, strict=True):
        x_hat = t.client.image(result.x.detach().float().cpu())
        seen = t.client.image(t.client.transformed(part.x, seed=t.seed, key=part.index))
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


def _found(trials: Sequence[Trial], views: Sequence[ServerView]) -> list[Reconstruction]:
    """What the trials' attacks find: climbs in one computation, others view by view."""
    first, pairs = trials[0], list(zip(trials, views, strict=True))
    if isinstance(first.attack, Adversary):
        return attack_all([(t.attack, view) for t, view in pairs], first.seed)
    return [t.attack.attack(view, t.seed) for t, view in pairs]
