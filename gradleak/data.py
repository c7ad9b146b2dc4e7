"""Real images in [0, 1] with labels, by fixed index."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import ClassVar

import numpy as np
import platformdirs
import torch
from torch import Tensor

from gradleak.names import choose
from gradleak.randomness import PATCHES, generator
from gradleak.scales import check_kind, check_whole, is_plain, refuse

# scikit-learn and torchvision are imported where they are used: they take seconds.
TORCHVISION = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10"}
NAMES = ("digits", *TORCHVISION)
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Source:
    """Which images: those at `index` of a split of a data set, without the images."""

    decides: ClassVar[bool] = False  # where images come from changes no result

    name: str
    split: str
    index: tuple[int, ...]

    def shared(self, images: Images) -> list[int]:
        """The indices of images that are among these, too."""
        same = (self.name, self.split) == (images.name, images.split)
        return sorted(set(self.index) & set(images.index)) if same else []

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

    def __post_init__(self) -> None:
        for name in ("x", "y"):
            value = getattr(self, name)
            check_kind(name, value, Tensor, "use torch.as_tensor(...)")
            if not is_plain(value) or not value.ndim or value.requires_grad:
                cure = "use .detach().to_dense(), and of one image x[None]"
                refuse(name, "a dense tensor of constants, (N, ...), a row an image", value, cure)
        for name in ("name", "split"):
            check_kind(name, getattr(self, name), str)
        check_whole("classes", self.classes, 1)
        object.__setattr__(self, "index", tuple(_positions(self.index)))
        if not len(self.x) == len(self.y) == len(self.index):
            raise ValueError(
                f"{len(self.x)} images, {len(self.y)} labels and {len(self.index)} indices: give "
                "each image a label and an index"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return tuple(self.x.shape[1:])

    @property
    def source(self) -> Source:
        """Which images these are."""
        return Source(self.name, self.split, self.index)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def digests(self) -> tuple[str, ...]:
        """The SHA-256 of each image with its label, (N,)."""
        both = self.x, self.y
        kind = repr([(t.dtype, tuple(t.shape[1:])) for t in both]).encode()
        flat = (t.detach().cpu().contiguous().reshape(len(t), prod(t.shape[1:])) for t in both)
        rows = zip(*(t.view(torch.uint8).numpy() for t in flat), strict=True)
        return tuple(hashlib.sha256(b"".join((kind, *row))).hexdigest() for row in rows)

    def take(self, index: Sequence[int]) -> Images:
        """The images at these positions, which are whole numbers.

        Raises IndexError outside the split, and ValueError for what is no position.
        """
        # Of a range, however long, the ends tell; it is not written out before they fit.
        ends = [*index[:1], *index[-1:]] if isinstance(index, range) else _positions(index)
        outside = [i for i in ends if not 0 <= i < len(self)]
        if outside:
            raise IndexError(
                f"{self.name} {self.split} has images 0 to {len(self) - 1}, not {outside[:5]}"
            )
        index = [*index] if isinstance(index, range) else ends
        places = tuple(self.index[i] for i in index)
        return replace(self, x=self.x[index], y=self.y[index], index=places)


def _positions(index: object) -> list[int]:
    """Whole numbers of Python, NumPy or PyTorch; ValueError for what only looks like them."""
    if not isinstance(index, Iterable) or (
        isinstance(index, Tensor | np.ndarray) and not index.ndim
    ):
        raise ValueError(f"images are taken by a list of positions, such as [0, 3], not {index!r}")
    found = [i.item() if isinstance(i, Tensor | np.generic) and i.ndim == 0 else i for i in index]
    for value in found:
        if type(value) is not int:
            raise ValueError(f"images are taken by positions, whole numbers, not {value!r}")
    return found


def root() -> Path:
    """Where data lie: $GRADLEAK_DATA, in which ~ is the user's home, else the user's cache."""
    folder = os.environ.get("GRADLEAK_DATA")
    if not folder:
        return platformdirs.user_cache_path("gradleak") / "data"
    try:
        return Path(folder).expanduser()
    except RuntimeError as error:  # of a user that is none
        raise FileNotFoundError(f"GRADLEAK_DATA is {folder}: {error}; set another") from error


def load(name: str, split: str = "test") -> Images:
    """All images of a split of `digits`, `mnist`, `fashion_mnist` or `cifar10`.

    digits (8x8, scikit-learn's wheel) needs no network; its last 500 images are the test split.
    The others are read by torchvision from `root()` and downloaded there if missing. Raises
    ValueError for an unknown name and FileNotFoundError if the data can be had neither way.
    """
    choose("dataset", name, NAMES)
    choose("split", split, SPLITS)
    held = _load(name, split, root())
    if held.x._version or held.y._version:  # somebody wrote into what is shared
        _load.cache_clear()
        held = _load(name, split, root())
    return held


def batch(name: str, index: Sequence[int], split: str = "test") -> tuple[Tensor, Tensor]:
    """x (N, C, H, W) in [0, 1] and y (N,) of the images at `index`."""
    images = load(name, split).take(index)
    return images.x, images.y


def photographs(shape: tuple[int, int, int], count: int, seed: int = 0) -> Images:
    """Random patches (C, H, W) of scikit-learn's two sample photographs, all with label 0.

    They need no network. A grey patch is the mean of its colours.
    """
    from sklearn.datasets import load_sample_images

    check_whole("count", count, 1)
    rng = generator(PATCHES, seed)
    photos = [torch.tensor(p).permute(2, 0, 1).float() / 255 for p in load_sample_images().images]
    most = [min(photo.shape[axis] for photo in photos) for axis in (1, 2)]
    check_kind("shape", shape, (tuple, list))
    for size in shape:
        check_whole("shape", size, 1)
    if len(shape) != 3 or shape[0] not in (1, 3) or shape[1] > most[0] or shape[2] > most[1]:
        refuse("shape", f"(C, H, W), C 1 or 3, and at most {most[0]}x{most[1]} pixels", shape)
    channels, height, width = shape
    x = torch.empty(count, 3, height, width)
    for k in range(count):
        photo = photos[k % len(photos)]
        top = int(torch.randint(photo.shape[1] - height + 1, (), generator=rng))
        left = int(torch.randint(photo.shape[2] - width + 1, (), generator=rng))
        x[k] = photo[:, top : top + height, left : left + width]
    x = x.mean(1, keepdim=True) if channels == 1 else x
    return Images("photographs", "train", x, torch.zeros(count).long(), tuple(range(count)), 10)


@lru_cache(maxsize=4)
@torch.inference_mode(False)  # whose tensors do not tell that they were written into
def _load(name: str, split: str, folder: Path) -> Images:
    x, y = _digits(split) if name == "digits" else _torchvision(name, split, folder)
    return Images(name, split, x, y, tuple(range(len(x))), classes=10)


def _digits(split: str) -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    pixels, labels = map(torch.from_numpy, load_digits(return_X_y=True))
    part = slice(-500, None) if split == "test" else slice(-500)  # others wrote the last ones
    return pixels[part].float().reshape(-1, 1, 8, 8) / 16, labels[part].long()


def _torchvision(name: str, split: str, folder: Path) -> tuple[Tensor, Tensor]:
    from torchvision import datasets

    kind = getattr(datasets, TORCHVISION[name])
    try:
        dataset = kind(folder, train=split == "train", download=True)  # if it is not there
    except (RuntimeError, OSError, ValueError, AssertionError, EOFError, LookupError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise FileNotFoundError(
            f"{name} cannot be read in {folder.resolve()} or downloaded there ({why}). Set "
            "GRADLEAK_DATA to a folder that holds it in torchvision's layout, delete its files in "
            "this one if they are damaged, or use the embedded dataset 'digits'"
        ) from error
    x = torch.as_tensor(dataset.data).float() / 255
    x = x.unsqueeze(1) if x.ndim == 3 else x.permute(0, 3, 1, 2).contiguous()
    return x, torch.as_tensor(dataset.targets).long()
