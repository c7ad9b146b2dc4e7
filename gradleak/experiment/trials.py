"""An attack against clients that hold images, and the name of each of its rows."""

import itertools
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from gradleak import metrics
from gradleak.attacks import Attack
from gradleak.client import Client, ServerView
from gradleak.data import Images
from gradleak.device import precision
from gradleak.experiment.records import Plain
from gradleak.identity import digest
from gradleak.scales import check_kind, check_whole

# Columns that are computed, or that tell of the trial itself.
TAKEN = {"id", "dataset", "split", "index", "seed", "mse", "psnr", "ssim", "psnr_x", "ssim_x",
         "log_posterior", "log_posterior_private", "log_posterior_from_private", "climb",
         "seconds", "device", "version", "true_defense", "transform", "batch_size"}  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """An attack against clients that hold one image each, or their batch size B of them.

    images: any labelled examples (n, *shape); clients of B hold consecutive ones, and their
        reconstructions are matched to those (`gradleak.metrics.match`). One row an image, always.
    attack: anything with `attack(view, seed=0) -> Reconstruction`, as `gradleak.attacks` are.
    labels: what a table calls it, such as defense="Gaussian", adversary="Bayes", train_step=0.
    keep: indices of the images whose reconstruction is stored as well.
    Raises ValueError for images that the attack was made from, for those that do not make whole
    clients or are to be kept and lie outside of [0, 1], and where client or attack have no stable
    description to name rows after (`gradleak.identity`), such as a loss that is a lambda.
    """

    client: Client
    attack: Attack
    images: Images
    labels: Mapping[str, Plain]
    seed: int = 0
    keep: Sequence[int] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.attack, Attack):
            raise ValueError(f"an attack inherits from gradleak.Attack, {self.attack!r} does not")
        if type(self.seed) is not int or self.seed < 0:
            raise ValueError(f"a seed is a whole number, at least 0, got {self.seed!r}")
        check_kind("client", self.client, Client)
        check_kind("images", self.images, Images, "such as gradleak.data.load(name).take(range(9))")
        check_kind("keep", self.keep, Collection, "the indices of images")
        for index in self.keep:
            check_whole("keep", index, cure="the indices of images")
        columns = self.attack.columns()
        check_labels(columns, TAKEN)
        check_labels(self.labels, TAKEN | columns.keys())
        if not len(set(self.images.index)) == len(self.images) > 0:
            raise ValueError(
                f"a trial attacks one image or more, each under an index of its own; got "
                f"{len(self.images)} with the indices {list(self.images.index)[:9]}"
            )
        for source in self.attack.sources:
            source.refuse(self.images)
        self._check_clients()
        self._check_kept()
        self._names  # noqa: B018  described once, so that errors come early

    @property
    def size(self) -> int:
        """How many images a client holds."""
        return self.client.batch_size or 1

    @property
    def clients(self) -> list[tuple[int, ...]]:
        """The indices of the images that each client holds."""
        index, size = self.images.index, self.size
        return [index[k : k + size] for k in range(0, len(index), size)]

    def release(self, images: Images) -> ServerView:
        """What the server sees of clients that hold these images, those of one after another."""
        x, y = self.by_client(images.x), self.by_client(images.y)
        return self.client.release(x, y, seed=self.seed, key=images.index[:: self.size])

    def by_client(self, rows: Tensor) -> Tensor:
        """Rows of images (n, ...) as those of clients: (n / B, B, ...) where they hold B."""
        return rows if self.client.batch_size is None else rows.unflatten(0, (-1, self.size))

    def seen(self, images: Images) -> Tensor:
        """What the network sees of each image, (n, *shape)."""
        return self.client.transformed(images.x, seed=self.seed, key=images.index)

    @cached_property
    def _client(self) -> str:
        return digest({"client": self.client})

    def released(self, images: Images) -> Hashable:
        """What names the release of these images: two that share it share their gradients."""
        return self._client, images.digests, images.index, self.seed

    @cached_property
    def _names(self) -> dict[int, str]:
        who = digest({"client": self.client, "attack": self.attack})
        digests = dict(zip(self.images.index, self.images.digests, strict=True))
        if self.client.batch_size is None:
            return {i: digest(who, image, i, self.seed) for i, image in digests.items()}
        # All images of a client decide its gradient, and the first one's index its noise.
        told = {held: [digests[i] for i in held] for held in self.clients}
        return {i: digest(who, told[held], i, held, self.seed) for held in told for i in held}

    def _check_clients(self) -> None:
        count, size = len(self.images), self.size
        if count % size:
            fitting = sorted({max(count // size, 1) * size, (count // size + 1) * size})
            raise ValueError(
                f"{count} images make no whole clients of {size}, which hold consecutive ones: "
                f"give {' or '.join(map(str, fitting))}"
            )

    def _check_kept(self) -> None:
        where = [k for k, i in enumerate(self.images.index) if i in self.keep]
        kept = self.images.x[where]
        if len(kept) and not metrics.in_range(kept).all():
            raise ValueError(
                "reconstructions are kept as pictures, with 8 bits in [0, 1], and these images lie "
                f"in [{kept.min():.3g}, {kept.max():.3g}]: leave keep out, rows hold all scores"
            )

    def parameters(self) -> dict[str, Plain]:
        """Everything that tells this trial from another, as plain values for a table."""
        client, images = self.client, self.images
        told = {"true_defense": repr(client.defense), "transform": repr(client.transform)}
        told |= {} if client.batch_size is None else {"batch_size": client.batch_size}
        told |= self.attack.columns() | {"seed": self.seed}
        return {"dataset": images.name, "split": images.split, **self.labels, **told}

    def row_id(self, index: int) -> str:
        """The name of the row of one image: a digest of everything that decides its values.

        Those are the client and the attack, as they were when the trial was made, the image's
        bytes, its index and the seed, from which random numbers come, the other images that the
        client holds, and the precision of matrix products. Labels, the data set's name and what is
        kept decide nothing.
        """
        rounded = precision.rounding()
        return digest(self._names[index], rounded) if rounded else self._names[index]


def check_labels(labels: Mapping[str, Plain], taken: Collection[str]) -> None:
    """Raise ValueError for labels that a table cannot hold, or that are columns of it already."""
    if not isinstance(labels, Mapping):
        raise ValueError(f"labels are a dictionary, such as defense='Gaussian', got {labels!r}")
    for name, value in labels.items():
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"a label's name is a text that is not blank, got {name!r}")
        whole = isinstance(value, int) and abs(value) < 2**63
        if not (whole or isinstance(value, str) or (isinstance(value, float) and value == value)):
            raise ValueError(
                f"the label {name} is {str(type(value))[8:-2]}: give a text, a whole number of 64 "
                "bits, True or False, or a float that is a number"
            )
    if labels.keys() & taken:
        both = ", ".join(sorted(labels.keys() & taken))
        raise ValueError(
            f"labels and an attack's columns may not be called as what is found or told: {both}; "
            "choose other names"
        )


def grid(**axes: Iterable[Any]) -> list[dict[str, Any]]:
    """Every combination: grid(a=[1, 2], b=[3]) is [{'a': 1, 'b': 3}, {'a': 2, 'b': 3}].

    Raises ValueError for an axis that is no list of values.
    """
    for name, values in axes.items():
        check_kind(f"the axis {name}", values, Iterable, "of one value: [value]")
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
