"""Real images in [0, 1] with labels, by fixed index."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import platformdirs
import torch
from torch import Tensor

from gradleak.names import choose
from gradleak.randomness import PATCHES, generator

# scikit-learn and torchvision are imported where they are used: they take seconds.
TORCHVISION = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10"}
NAMES = ("digits", *TORCHVISION)
SPLITS = ("train", "test")
_DIGITS_TEST = 500  # the last digits, whose writers are not among the first


@dataclass(frozen=True)
class Source:
    """Which images: those at `index` of a split of a data set, without the images."""

    decides: ClassVar[bool] = False  # where images come from changes no result

    name: str
    split: str
    index: tuple[int, ...]

    def shared(self, images: Images) -> list[int]:
        """The indices of images that are among these, too."""
        if (self.name, self.split) != (images.name, images.split):
            return []
        return sorted(set(self.index) & set(images.index))

    def refuse(self, images: Images) -> None:
        """Raise ValueError if some of the images that are attacked are among these."""
        known = self.shared(images)
        if known:
            raise ValueError(
                f"images {known[:5]} of {self.name} ({self.split}) are attacked and among those "
                "that the attacker learnt from; attack others, such as the test split's"
            )


@dataclass(frozen=True)
class Images:
    """Labelled images: x (N, C, H, W) in [0, 1], y (N,) int64, index (N,) in the split."""

    name: str = field(compare=False)
    split: str = field(compare=False)
    x: Tensor
    y: Tensor
    index: tuple[int, ...] = field(compare=False)
    classes: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return tuple(self.x.shape[1:])

    @property
    def source(self) -> Source:
        """Which images these are."""
        return Source(self.name, self.split, self.index)

    def __len__(self) -> int:
        """N."""
        return len(self.x)

    @property
    def digests(self) -> tuple[str, ...]:
        """The SHA-256 of each image with its label, (N,); computed anew once they were changed."""
        versions = [0 if t.is_inference() else t._version for t in (self.x, self.y)]
        known = vars(self).get("_digests")
        if known is None or known[0] != versions:
            known = versions, tuple(_digests(self.x, self.y))
            vars(self)["_digests"] = known
        return known[1]

    def take(self, index: Sequence[int]) -> Images:
        """The images at these positions. Raises IndexError outside the split."""
        index = [int(i) for i in index]
        outside = [i for i in index if not 0 <= i < len(self)]
        if outside:
            raise IndexError(
                f"{self.name} {self.split} has images 0 to {len(self) - 1}, not {outside[:5]}"
            )
        places = tuple(self.index[i] for i in index)
        part = Images(self.name, self.split, self.x[index], self.y[index], places, self.classes)
        if "_digests" in vars(self):
            vars(part)["_digests"] = [0, 0], tuple(self.digests[i] for i in index)
        return part


def _digests(x: Tensor, y: Tensor) -> Iterator[str]:
    kind = hashlib.sha256(repr([(t.dtype, tuple(t.shape[1:])) for t in (x, y)]).encode())
    rows = (t.detach().cpu().contiguous().reshape(len(t), -1) for t in (x, y))
    for image, label in zip(*(t.view(torch.uint8).numpy() for t in rows), strict=True):
        each = kind.copy()
        each.update(image)
        each.update(label)
        yield each.hexdigest()


def root() -> Path:
    """Where data lie: $GRADLEAK_DATA, else the user's cache folder."""
    folder = os.environ.get("GRADLEAK_DATA")
    return Path(folder) if folder else platformdirs.user_cache_path("gradleak") / "data"


def load(name: str, split: str = "test") -> Images:
    """All images of a split of `digits`, `mnist`, `fashion_mnist` or `cifar10`.

    digits (8x8, scikit-learn's wheel) needs no network; its last 500 images are the test split.
    The others are read by torchvision from `root()` and downloaded there if missing. Raises
    ValueError for an unknown name and FileNotFoundError if the data can be had neither way.
    """
    choose("dataset", name, NAMES)
    choose("split", split, SPLITS)
    return _load(name, split, root())


def batch(name: str, index: Sequence[int], split: str = "test") -> tuple[Tensor, Tensor]:
    """x (N, C, H, W) in [0, 1] and y (N,) of the images at `index`."""
    images = load(name, split).take(index)
    return images.x, images.y


def photographs(shape: tuple[int, int, int], count: int, seed: int = 0) -> Images:
    """Random patches (C, H, W) of scikit-learn's two sample photographs, all with label 0.

    They need no network. A grey patch is the mean of its colours.
    """
    from sklearn.datasets import load_sample_images

    channels, height, width = shape
    rng = generator(PATCHES, seed)
    photos = [torch.tensor(p).permute(2, 0, 1).float() / 255 for p in load_sample_images().images]
    patches = []
    for k in range(count):
        photo = photos[k % len(photos)]
        top = int(torch.randint(photo.shape[1] - height + 1, (), generator=rng))
        left = int(torch.randint(photo.shape[2] - width + 1, (), generator=rng))
        patches.append(photo[:, top : top + height, left : left + width])
    x = torch.stack(patches)
    x = x.mean(1, keepdim=True) if channels == 1 else x
    return Images("photographs", "train", x, torch.zeros(count).long(), tuple(range(count)), 10)


@lru_cache(maxsize=4)
def _load(name: str, split: str, folder: Path) -> Images:
    x, y = _digits(split) if name == "digits" else _torchvision(name, split, folder)
    return Images(name, split, x, y, tuple(range(len(x))), classes=10)


def _digits(split: str) -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    part = slice(-_DIGITS_TEST, None) if split == "test" else slice(None, -_DIGITS_TEST)
    x = torch.from_numpy(pixels[part]).float().reshape(-1, 1, 8, 8) / 16
    return x, torch.from_numpy(labels[part]).long()


def _torchvision(name: str, split: str, folder: Path) -> tuple[Tensor, Tensor]:
    from torchvision import datasets

    kind, train = getattr(datasets, TORCHVISION[name]), split == "train"
    try:
        dataset = kind(folder, train=train, download=False)
    except (RuntimeError, OSError):
        try:
            dataset = kind(folder, train=train, download=True)
        except (RuntimeError, OSError) as error:
            raise FileNotFoundError(
                f"{name} is not in {folder.resolve()} and could not be downloaded there ({error}). "
                "Set GRADLEAK_DATA to a folder that holds it in torchvision's layout, or use the "
                "embedded dataset 'digits'"
            ) from error
    x = torch.as_tensor(dataset.data).float() / 255
    x = x.unsqueeze(1) if x.ndim == 3 else x.permute(0, 3, 1, 2).contiguous()
    return x, torch.as_tensor(dataset.targets).long()
