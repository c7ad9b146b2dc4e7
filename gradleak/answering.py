"""Scores of guesses that are no climbs: what any function returns for images, one row each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from gradleak import metrics, records
from gradleak.data import Images
from gradleak.experiment import device, digest
from gradleak.records import Plain
from gradleak.version import __version__

Answers = Callable[[], Mapping[str, Tensor]]
"""Who answers -> images (N, C, H, W); called only if a row is missing."""


def answers(
    cells: Sequence[tuple[Mapping[str, Plain], Sequence[str], Answers]],
    images: Images,
    path: Path | str,
    command: str = "",
    keep: Sequence[int] = (),
) -> pd.DataFrame:
    """One row for each answer to each image, scored and kept as `experiment.run` does it.

    cells: (labels, the names of those who answer, function that returns their answers). The names
    become the column `adversary`. keep: indices of the images whose answers are stored. Raises
    ValueError for answers of another name or shape.
    """
    path, ids = Path(path), []
    what = {"dataset": images.name, "version": __version__}
    with records.only_writer(path):
        done = records.begin(path, **what)
        for labels, names, compute in cells:
            told = {"dataset": images.name, "split": images.split, **labels}
            wanted = [digest([told, name, i]) for name in names for i in images.index]
            ids += wanted
            if done.issuperset(wanted):
                continue
            begin = time.perf_counter()
            found = compute()
            seconds = round((time.perf_counter() - begin) / len(wanted), 4)
            rows, kept = [], {}
            for name in names:
                x = _checked(found, name, images)
                more = {"adversary": name, "seconds": seconds, "version": __version__}
                rows += _rows(x, images, told, more)
                kept |= {digest([told, name, i]): _pixels(x[k])
                         for k, i in enumerate(images.index) if i in keep}  # fmt: skip
            records.append(path, [row for row in rows if row["id"] not in done], kept)
            total = round(float(records.read(path)["seconds"].sum()), 1)
            records.write_facts(path, device(), command=command, seconds=total, **what)
    records.mark_used(path, ids)
    return records.read(path).set_index("id").loc[ids].reset_index()


def _rows(
    x: Tensor, images: Images, told: Mapping[str, Plain], more: Mapping[str, Plain]
) -> list[dict[str, Plain]]:
    """The scores of one who answers."""
    metric = (metrics.mse, metrics.psnr, metrics.ssim)
    scores = {f.__name__: f(x, images.x).tolist() for f in metric}
    return [
        {
            "id": digest([told, more["adversary"], index]),
            **told,
            **more,
            "index": index,
            **{name: values[k] for name, values in scores.items()},
        }
        for k, index in enumerate(images.index)
    ]


def _checked(found: Mapping[str, Tensor], name: str, images: Images) -> Tensor:
    if name not in found or found[name].shape != images.x.shape:
        got = {k: tuple(v.shape) for k, v in found.items()}
        raise ValueError(f"'{name}' should answer {tuple(images.x.shape)}, the answers are {got}")
    return found[name].detach().float().cpu()


def _pixels(x: Tensor) -> np.ndarray:
    return (x.clamp(0, 1) * 255).round().byte().numpy()
