"""Scores of guesses that are no climbs: what any function returns for images, one row each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

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
            named = {
                (name, index): digest([told, name, index])
                for name in names
                for index in images.index
            }
            ids += named.values()
            if done.issuperset(named.values()):
                continue
            begin = time.perf_counter()
            found = compute()
            seconds = round((time.perf_counter() - begin) / len(named), 4)
            rows, kept = [], {}
            for name in names:
                x = _checked(found, name, images)
                scores = {f.__name__: f(x, images.x).tolist()
                          for f in (metrics.mse, metrics.psnr, metrics.ssim)}  # fmt: skip
                for k, index in enumerate(images.index):
                    row = {"id": named[name, index], **told, "adversary": name, "index": index}
                    row |= {metric: values[k] for metric, values in scores.items()}
                    rows.append(row | {"seconds": seconds, "version": __version__})
                    if index in keep:
                        pixels = (x[k].clamp(0, 1) * 255).round().byte()
                        kept[row["id"]] = pixels.numpy()
            rows = [row for row in rows if row["id"] not in done]
            records.append(path, rows, kept)
            total = round(float(records.read(path)["seconds"].sum()), 1)
            records.write_facts(path, device(), command=command, seconds=total, **what)
    records.mark_used(path, ids)
    return records.read(path).set_index("id").loc[ids].reset_index()


def _checked(found: Mapping[str, Tensor], name: str, images: Images) -> Tensor:
    if name not in found or found[name].shape != images.x.shape:
        got = {k: tuple(v.shape) for k, v in found.items()}
        raise ValueError(f"'{name}' should answer {tuple(images.x.shape)}, the answers are {got}")
    return found[name].detach().float().cpu()
