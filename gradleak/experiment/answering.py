"""Scores of guesses that are no climbs: what any function returns for images, one row each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd
from torch import Tensor

from gradleak import metrics
from gradleak.data import Images, Source
from gradleak.experiment import records
from gradleak.experiment.records import Plain
from gradleak.identity import digest
from gradleak.version import __version__

Answers = Callable[[], Mapping[str, Tensor]]
"""Who answers -> images (N, C, H, W); called only if a row is missing."""


def answers(
    cells: Sequence[tuple[Mapping[str, Plain], Sequence[str], Answers]],
    images: Images,
    path: Path | str,
    command: str = "",
    keep: Sequence[int] = (),
    learnt_from: Sequence[Source] = (),
) -> pd.DataFrame:
    """One row for each answer to each image, scored and kept as `experiment.run` does it.

    cells: (labels, the names of those who answer, function that returns their answers). The names
    become the column `adversary`. keep: indices of images whose answers are stored. learnt_from:
    what those who answer were made of. Raises ValueError for images that are among it, and for
    answers of another name or shape.
    """
    for source in learnt_from:
        source.refuse(images)
    path, ids = Path(path), []
    what = {"dataset": images.name, "version": __version__}
    with records.only_writer(path):
        done, stored = records.begin(path, **what), records.stored(path)
        for labels, names, compute in cells:
            told = {"dataset": images.name, "split": images.split, **labels}
            named = {name: [digest([told, name, i]) for i in images.index] for name in names}
            wanted = [id for own in named.values() for id in own]
            ids += wanted
            asked = {own[k] for own in named.values()
                     for k, index in enumerate(images.index) if index in keep}  # fmt: skip
            if done.issuperset(wanted) and stored.issuperset(asked):
                continue
            begin = time.perf_counter()
            found = compute()
            told["seconds"] = round((time.perf_counter() - begin) / len(wanted), 4)
            rows, kept = [], {}
            for name, own in named.items():
                x = _checked(found, name, images)
                rows += _rows(x, images, own, {**told, "adversary": name})
                kept |= {id: records.pixels(x[k]) for k, id in enumerate(own) if id in asked}
            records.append(path, [row for row in rows if row["id"] not in done], kept)
            total = round(float(records.read(path)["seconds"].sum()), 1)
            records.write_facts(path, named(), command=command, seconds=total, **what)
    records.mark_used(path, ids)
    return records.read(path).set_index("id").loc[ids].reset_index()


def _rows(
    x: Tensor, images: Images, ids: Sequence[str], told: Mapping[str, Plain]
) -> list[dict[str, Plain]]:
    """The scores of one who answers."""
    scores = metrics.scores(x, images.x)
    return [
        {
            "id": ids[k],
            **told,
            "index": index,
            **{name: values[k].item() for name, values in scores.items()},
            "version": __version__,
        }
        for k, index in enumerate(images.index)
    ]


def _checked(found: Mapping[str, Tensor], name: str, images: Images) -> Tensor:
    if name not in found or found[name].shape != images.x.shape:
        got = {k: tuple(v.shape) for k, v in found.items()}
        raise ValueError(f"'{name}' should answer {tuple(images.x.shape)}, the answers are {got}")
    return found[name].detach().float().cpu()
