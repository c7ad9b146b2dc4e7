"""The networks that are attacked: images in [0, 1] go in, logits come out.

Initialised as the paper's Flax networks are (weights LeCun normal, biases zero) unless they say
otherwise, and deterministic given a seed. Normalisation is the first layer, so that attacks, priors
and metrics see [0, 1].
"""

import inspect
import itertools
import json
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gradleak.files import sound, whole
from gradleak.identity import UndescribableError, given, made
from gradleak.randomness import MODEL, generator, seeded
from gradleak.scales import POSITIVE, check_kind, check_numbers, check_whole, refuse

Shape = tuple[int, int, int]
"""(C, H, W) of one image."""

# Mean and standard deviation of the training images by number of channels: the paper's code
# normalises grey images with MNIST's and colour images with CIFAR-10's.
NORMALIZATION = {
    1: ((0.1307,), (0.3081,)),
    3: ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
}


class Normalize(nn.Module):
    """(x - mean) / std for each channel of x (..., C, H, W)."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        check_numbers("mean", mean, "(-1e18, 1e18)")
        check_numbers("std", std, POSITIVE)
        if len(mean) != len(std) or not len(mean):
            raise ValueError(f"mean and std must be one number a channel: {mean} and {std}")
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise."""
        return (x - self.mean) / self.std

    def inverse(self, x: Tensor) -> Tensor:
        """Undo it."""
        return x * self.std + self.mean


P = ParamSpec("P")
M = TypeVar("M", bound=nn.Module)
REVISION = 0  # raised by hand when a constructor makes another network of the same arguments


def constructor(build: Callable[P, M]) -> Callable[P, M]:
    """Note on each network which call made it, so that results are named after that."""

    @wraps(build)
    def noted(*args: P.args, **kwargs: P.kwargs) -> M:
        call = inspect.signature(build).bind(*args, **kwargs)
        call.apply_defaults()
        _check(call.arguments)
        model = build(*args, **kwargs)
        with suppress(UndescribableError):  # an activation that is a lambda: its weights tell
            made(model, build, given(build, *args, **kwargs), REVISION)
        return model

    return noted


def check_sizes(name: str, sizes: Sequence[int]) -> None:
    """Raise ValueError unless these are a tuple of whole numbers, at least 1."""
    if not isinstance(sizes, tuple | list | torch.Size):
        refuse(name, "a tuple of whole numbers", sizes)
    for size in sizes:
        check_whole(name, size, 1)


def image(shape: Shape, least: int = 1) -> Shape:
    """The shape of images, (C, H, W); ValueError unless they have `least` pixels a side."""
    check_sizes("shape", shape)
    if len(shape) != 3 or shape[0] not in NORMALIZATION:
        raise ValueError(
            f"shape is (C, H, W) with C = 1 (grey) or 3 (colour), got {tuple(shape)}; for other "
            "inputs bring your own nn.Module"
        )
    _, height, width = shape
    if min(height, width) < least:
        raise ValueError(
            f"shape: this network needs images of at least {least}x{least} pixels, got "
            f"{height}x{width}"
        )
    return shape


def _check(arguments: Mapping[str, Any]) -> None:
    """Raise ValueError for a size or seed that no network has."""
    for name, value in arguments.items():
        if name in ("classes", "width", "size"):
            check_whole(name, value, 1)
        elif name == "seed":
            check_whole(name, value)
        elif name == "widths":
            check_sizes(name, value)
        elif name == "activation" and not _makes_a_module(value):
            refuse(name, "a function or class that makes a module, such as nn.ReLU", value)


def _makes_a_module(make: object) -> bool:
    if not callable(make) or isinstance(make, nn.Module):
        return False
    try:
        return isinstance(make(), nn.Module)
    except TypeError:  # it wants arguments
        return False


@constructor
def cnn(
    shape: Shape, classes: int, seed: int = 0, activation: Callable[[], nn.Module] = nn.ReLU
) -> nn.Sequential:
    """The network of the paper's comparison: two 3x3 convolutions with pooling, two dense layers.

    333,526 parameters for MNIST, 430,102 for CIFAR-10.
    """
    channels, height, width = image(shape, 4)
    return _build(
        shape,
        seed,
        conv1=nn.Conv2d(channels, 32, 3, padding="same"),
        relu1=activation(),
        pool1=nn.AvgPool2d(2),
        conv2=nn.Conv2d(32, 64, 3, padding="same"),
        relu2=activation(),
        pool2=nn.AvgPool2d(2),
        flatten=nn.Flatten(),
        dense1=nn.Linear(64 * (height // 4) * (width // 4), 100),
        relu3=activation(),
        dense2=nn.Linear(100, classes),
    )


@constructor
def cnn2(shape: Shape, classes: int, seed: int = 0) -> nn.Sequential:
    """Three 3x3 convolutions (32, 64, 128; strides 1, 2, 2) and one dense layer."""
    channels, *size = image(shape)
    layers = {"conv1": nn.Conv2d(channels, 32, 3, padding="same"), "relu1": nn.ReLU()}
    for i, channels in enumerate((32, 64), start=2):
        height, width = size
        # Padding "SAME", as in Flax: the odd pixel goes right and below.
        layers[f"pad{i}"] = nn.ZeroPad2d((width % 2, 1, height % 2, 1))
        layers[f"conv{i}"] = nn.Conv2d(channels, 2 * channels, 3, stride=2)
        layers[f"relu{i}"] = nn.ReLU()
        size = [math.ceil(n / 2) for n in size]
    dense = nn.Linear(128 * math.prod(size), classes)
    return _build(shape, seed, **layers, flatten=nn.Flatten(), dense=dense)


@constructor
def convbig(shape: Shape, classes: int, seed: int = 0) -> nn.Sequential:
    """The network of the Soteria experiments: two convolutions, then 2000, 1000, `classes`.

    12,384,018 parameters for CIFAR-10. The second convolution is 1x1 with a padding of 1, as
    published. Initialised as PyTorch does by default. `dense1` makes the representation.
    """
    channels, height, width = image(shape, 2)
    with seeded(MODEL, seed):
        return sequential(
            shape,
            conv1=nn.Conv2d(channels, 32, 3, padding=1),
            relu1=nn.ReLU(),
            pool1=nn.AvgPool2d(2),
            conv2=nn.Conv2d(32, 64, 1, padding=1),
            relu2=nn.ReLU(),
            pool2=nn.AvgPool2d(2),
            flatten=nn.Flatten(),
            dense1=nn.Linear(64 * ((height // 2 + 2) // 2) * ((width // 2 + 2) // 2), 2000),
            relu3=nn.ReLU(),
            dense2=nn.Linear(2000, 1000),
            relu4=nn.ReLU(),
            dense3=nn.Linear(1000, classes),
        )


@constructor
def lenet(shape: Shape, classes: int, seed: int = 0) -> nn.Sequential:
    """Four 5x5 convolutions of 12 channels with sigmoids (strides 2, 2, 1, 1), one dense layer.

    19,438 parameters for CIFAR-10. Initialised as PyTorch does by default.
    """
    channels, height, width = image(shape)
    layers: dict[str, nn.Module] = {}
    with seeded(MODEL, seed):
        for i, stride in enumerate((2, 2, 1, 1), start=1):
            layers[f"conv{i}"] = nn.Conv2d(channels, 12, 5, stride, padding=2)
            layers[f"sigmoid{i}"] = nn.Sigmoid()
            channels = 12
        size = 12 * math.ceil(height / 4) * math.ceil(width / 4)
        return sequential(shape, **layers, flatten=nn.Flatten(), dense=nn.Linear(size, classes))


@constructor
def convnet(shape: Shape, classes: int, width: int = 64, seed: int = 0) -> nn.Sequential:
    """The network of the ATS experiments: eight 3x3 convolutions with batch normalisation.

    Channels are 1, 2, 2, 4, 4, 4 and 4, 4 times `width`, with a maximum over 3x3 places after the
    sixth and the eighth; then one dense layer. 2,904,970 parameters for CIFAR-10 with width 64.
    Initialised as PyTorch does by default, and in eval mode: it normalises by running statistics.
    Images have 9 or more pixels a side; ValueError otherwise.
    """
    channels, height, across = image(shape, 9)
    layers: dict[str, nn.Module] = {}
    with seeded(MODEL, seed):
        for i, times in enumerate((1, 2, 2, 4, 4, 4, 4, 4), start=1):
            layers[f"conv{i}"] = nn.Conv2d(channels, times * width, 3, padding=1)
            layers[f"norm{i}"] = nn.BatchNorm2d(times * width)
            layers[f"relu{i}"] = nn.ReLU()
            if i in (6, 8):
                layers[f"pool{i}"] = nn.MaxPool2d(3)
            channels = times * width
        size = channels * (height // 9) * (across // 9)
        layers |= {"flatten": nn.Flatten(), "dense": nn.Linear(size, classes)}
        return sequential(shape, **layers).eval()


@constructor
def mlp(shape: Shape, classes: int, widths: Sequence[int] = (100,), seed: int = 0) -> nn.Sequential:
    """Dense layers of the given widths with ReLU between them."""
    sizes = [math.prod(image(shape)), *widths, classes]
    layers: dict[str, nn.Module] = {"flatten": nn.Flatten()}
    for i, (before, after) in enumerate(itertools.pairwise(sizes), start=1):
        layers[f"dense{i}"] = nn.Linear(before, after)
        if i < len(sizes) - 1:
            layers[f"relu{i}"] = nn.ReLU()
    return _build(shape, seed, **layers)


def sequential(shape: Shape, **layers: nn.Module) -> nn.Sequential:
    """Normalisation, then the layers; ValueError unless images have one channel or three."""
    normalize = Normalize(*NORMALIZATION[image(shape)[0]])
    return nn.Sequential(OrderedDict(normalize=normalize, **layers))


def _build(shape: Shape, seed: int, **layers: nn.Module) -> nn.Sequential:
    """Variance 1 / fan-in, truncated at two standard deviations; biases zero (Flax's default)."""
    model = sequential(shape, **layers)
    rng = generator(MODEL, seed)
    for module in model:
        if isinstance(module, nn.Conv2d | nn.Linear):
            std = 1 / math.sqrt(module.weight[0].numel())
            std /= 0.87962566103423978  # the standard deviation that truncation leaves of 1
            _truncated_normal(module.weight, std, rng)
            nn.init.zeros_(module.bias)
    return model


@torch.no_grad()
def _truncated_normal(weight: Tensor, std: float, rng: torch.Generator) -> None:
    """Fill with normal numbers within two deviations, the bits of PyTorch 2.14's `trunc_normal_`.

    Its older versions draw others, and a seed has to mean one network under all of them.
    """
    weight.normal_(0, std, generator=rng)
    while (beyond := weight.abs() > 2 * std).any():
        again = torch.empty_like(weight).normal_(0, std, generator=rng)
        weight.copy_(torch.where(beyond, again, weight))


def save(model: nn.Module, path: Path, **facts: str | int | float) -> None:
    """Write the model's state and facts about it to a safetensors file, whole or not at all.

    Raises ValueError for weights that are not finite or no dense tensors, and for facts that JSON
    does not hold; OSError where nothing can be written.
    """
    check_kind("model", model, nn.Module)
    check_kind("path", path, (str, Path))
    try:  # each of its own memory: weights may be tied
        state = {k: v.detach().clone().contiguous() for k, v in model.state_dict().items()}
        _refuse_infinite(state)
        told = json.dumps(facts)
        with whole(Path(path)) as scratch:
            save_file(state, scratch, metadata={"facts": told})
    except (AttributeError, TypeError, RuntimeError, NotImplementedError) as error:
        raise ValueError(
            f"the state of {type(model).__name__}, or a fact about it, is none that a file of "
            f"tensors and texts can hold: {error}"
        ) from error
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from error


def load(model: nn.Module, path: Path) -> dict[str, str | int | float]:
    """Load a saved state into the model and return the facts. Nothing is unpickled.

    Raises DamagedError, a ValueError, for a file that is none of this network, or not finite.
    """
    check_kind("model", model, nn.Module)
    check_kind("path", path, (str, Path))
    cure = "delete it, and it is made anew, or give the file that `save` wrote of such a network"
    errors = (SafetensorError, RuntimeError, KeyError, TypeError)
    with sound(path, "this network", cure, *errors):
        state = load_file(path)
        _refuse_infinite(state)
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
        if not isinstance(facts, dict):
            raise ValueError(f"its facts are {facts!r:.99}")
        model.load_state_dict(state)
    return facts


def _refuse_infinite(state: Mapping[str, Tensor]) -> None:
    bad = [name for name, values in state.items() if not values.isfinite().all()]
    if bad:
        raise ValueError(
            f"weights that are not finite, in {', '.join(bad[:3])}: train with a smaller lr"
        )
