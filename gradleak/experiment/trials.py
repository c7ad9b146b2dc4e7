"""An attack against clients that hold images, and the name of each of its rows."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gradleak.attacks import Attack
from gradleak.client import Client
from gradleak.data import Images
from gradleak.experiment.records import Plain


@dataclass(frozen=True)
class Trial:
    """An attack against clients that hold one image each (or batch_size of them).

    labels: what a table calls it, such as defense="Gaussian", adversary="Bayes", train_step=0.
    keep: indices of the images whose reconstruction is stored as well.
    """

    client: Client
    attack: Attack
    images: Images
    labels: Mapping[str, Plain]
    seed: int = 0
    keep: Sequence[int] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        for source in self.attack.sources:
            source.refuse(self.images)

    def parameters(self) -> dict[str, Plain]:
        """Everything that tells this trial from another, as plain values."""
        return {
            "dataset": self.images.name,
            "split": self.images.split,
            **self.labels,
            "true_defense": repr(self.client.defense),
            "transform": repr(self.client.transform),
            **self.attack.columns(),
            "seed": self.seed,
        }

    def row_id(self, index: int) -> str:
        """The name of the row of one image, a digest of the trial's parameters and the index."""
        return digest([self.parameters(), index])


def grid(**axes: Iterable[Any]) -> list[dict[str, Any]]:
    """Every combination: grid(a=[1, 2], b=[3]) is [{'a': 1, 'b': 3}, {'a': 2, 'b': 3}]."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def digest(what: Any) -> str:
    """The name of a row: a digest of what tells it from others."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]
