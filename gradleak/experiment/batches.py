"""What is computed together: many attacks of one kind in one computation."""

import itertools
from collections.abc import Collection, Hashable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from gradleak import metrics
from gradleak.attacks import (
    AT_ONCE,
    Adversary,
    Reconstruction,
    asked,
    attack_all,
    mergeable,
    score_all,
)
from gradleak.client import ServerView
from gradleak.data import Images
from gradleak.device import free
from gradleak.experiment.limits import from_private
from gradleak.experiment.records import Plain
from gradleak.experiment.trials import Trial
from gradleak.version import __version__

Part = tuple[Trial, Images]


def batches(trials: Sequence[Trial], missing: Collection[str]) -> Iterator[list[Part]]:
    """Missing rows, each once, in batches to compute together: what an interruption can lose."""
    left, groups = set(missing), []
    for trial in trials:
        rows = [{trial.row_id(i) for i in held} for held in trial.clients]
        work = [(trial, k) for k, names in enumerate(rows) if names & left]
        left.difference_update(*rows)
        group = next((g for g in groups if work and _together(g[0][0], trial)), [])
        if work and not group:
            groups.append(group)
        group += work
    for group in groups:
        first = group[0][0]
        step = _at_once(first, next(first.client.model.parameters()).device)
        for start in range(0, len(group), step):
            parts = itertools.groupby(group[start : start + step], key=lambda w: id(w[0]))
            yield [_part(items[0][0], [k for _, k in items])
                   for items in (list(part) for _, part in parts)]  # fmt: skip


def _part(trial: Trial, clients: Sequence[int]) -> Part:
    """The images that some of the trial's clients hold, those of one after another."""
    size = trial.size
    return trial, trial.images.take([k * size + b for k in clients for b in range(size)])


def _at_once(trial: Trial, device: torch.device) -> int:
    """How many clients of such trials a batch takes: no more than whose released gradients fit."""
    parameters = [p for p in trial.client.model.parameters() if p.requires_grad]
    released = sum(p.numel() * p.element_size() for p in parameters)
    fit = free(device) // (4 * released)  # the true gradient, its noise, their sum, and a copy
    starts = trial.attack.restarts if isinstance(trial.attack, Adversary) else 1
    return max(1, min(AT_ONCE.get(device.type, 64) // starts, fit))


def _together(a: Trial, b: Trial) -> bool:
    climbs = isinstance(a.attack, Adversary) and isinstance(b.attack, Adversary)
    same = (a.seed, a.images.shape) == (b.seed, b.images.shape)
    return climbs and same and mergeable([a.attack, b.attack])


def compute(
    batch: list[Part], keep: Collection[str] = ()
) -> tuple[dict[str, dict[str, Plain]], dict[str, np.ndarray]]:
    """What a batch of attacks finds for each row, and the reconstructions to keep, by row id."""
    views: dict[Hashable, ServerView] = {}  # trials that attack the same release share it
    pairs, seed = [], batch[0][0].seed
    for t, part in batch:
        key = t.released(part)
        if key not in views:
            views[key] = t.release(part)
        pairs.append((t.attack, views[key]))
    if isinstance(pairs[0][0], Adversary):
        found = attack_all(pairs, seed)
        exact = score_all(pairs, [result.x for result in found])
        private = from_private(pairs, [t.by_client(t.seen(part)) for t, part in batch], seed)
        others = [{"log_posterior": a} | b for a, b in zip(exact, private, strict=True)]
    else:
        found = [asked(a, view, seed) for a, view in pairs]
        others = [{}] * len(pairs)
    rows, kept = {}, {}
    for (t, part), result, other in zip(batch, found, others, strict=True):
        x_hat, scores = _scored(t, part, result)
        scores |= {name: each.cpu().repeat_interleave(t.size) for name, each in other.items()}
        same = {"seconds": round(result.seconds / len(part), 4), "device": result.x.device.type,
                "version": __version__}  # fmt: skip
        names = [t.row_id(index) for index in part.index]
        for k, name in enumerate(names):
            rows[name] = {what: values[k].item() for what, values in scores.items()} | same
            if result.climbs is not None:
                rows[name]["climb"] = result.climbs[k // t.size]
        pixels = (x_hat.clamp(0, 1) * 255).round().byte().numpy()
        kept |= {name: pixels[k] for k, name in enumerate(names) if name in keep}
    return rows, kept


def _scored(trial: Trial, part: Images, result: Reconstruction) -> tuple[Tensor, dict[str, Tensor]]:
    """The reconstruction of each image, and what is said of it, (n,) each."""
    client, x_hat = trial.client, result.x.detach().float().cpu()
    if client.batch_size is not None:  # matched once, for all scores
        x_hat = metrics.match(x_hat, trial.by_client(part.x)).flatten(0, 1)
    x_hat = client.image(x_hat)
    seen = client.image(trial.seen(part))
    scores = metrics.scores(x_hat, seen)
    if client.transform is not None:
        private = metrics.scores(x_hat, part.x)
        scores |= {f"{name}_x": private[name] for name in ("psnr", "ssim")}
    scores["log_posterior"] = result.log_posterior.repeat_interleave(trial.size)
    return x_hat, scores
