"""Training the attacked networks, with a gradient defense active, and keeping checkpoints."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from gradleak.client import Client
from gradleak.data import Images
from gradleak.defenses import NoDefense
from gradleak.identity import UndescribableError, digest, given, made
from gradleak.models import load, save
from gradleak.randomness import BATCHES, generator
from gradleak.scales import check_number

REVISION = 0  # raised by hand when training gives other networks


@dataclass(frozen=True)
class Checkpoint:
    """The model after `step` training steps, in eval mode."""

    step: int
    model: nn.Module


def checkpoints(
    client: Client,
    images: Images,
    steps: Iterable[int],
    *,
    batch_size: int = 32,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
    lr: float = 0.1,
    seed: int = 0,
) -> Iterator[Checkpoint]:
    """Train a copy of the client's model and yield it at each of the given training steps.

    A step is one federated round: batch_size clients with one image each release their gradient
    through the client's defense, and the server follows the mean. Step 0 is the untrained model.
    Clients transform their images as in `Client.release`. Without a defense this is the usual
    training, in train mode: batch normalisation then uses and collects the batch's statistics.
    Raises ValueError for steps, a batch or a rate that are none, and where weights are no longer
    finite.
    """
    wanted = _steps(steps)
    _check(batch_size, lr, len(images))
    options = {"batch_size": batch_size, "optimizer": optimizer, "lr": lr, "seed": seed}
    how = ""  # of a network that nobody can make again: its weights tell
    with suppress(UndescribableError):
        how = _how(client, images, options)
    model = copy.deepcopy(client.model)
    device = next(model.parameters()).device
    worker = Client(model, client.defense, client.loss)
    update = optimizer(model.parameters(), lr=lr)
    batches = _batches(len(images), batch_size, seed)
    for step in tqdm(range(wanted[-1] + 1), desc="train", delay=2, disable=None):
        if step in wanted:
            now = copy.deepcopy(model).eval()
            if not all(p.isfinite().all() for p in now.parameters()):
                raise ValueError(
                    f"after at most {step} training steps weights are not finite: train with a "
                    f"smaller rate than lr={lr:g}"
                )
            yield Checkpoint(step, made(now, how, step) if how and step else now)
        if step == wanted[-1]:
            return
        index = next(batches)
        x, y = images.x[index].to(device), images.y[index].to(device)
        keys = [(seed, step, k) for k in range(batch_size)]
        x = x if client.transform is None else client.transform(x, keys)
        update.zero_grad()
        if isinstance(client.defense, NoDefense):
            # The mean of gradients is the gradient of the mean loss, taken as it usually is.
            client.loss(model.train()(x), y).backward()
            model.eval()
        else:
            g = worker.distribution(x, y).sample(keys)
            for name, parameter in model.named_parameters():
                parameter.grad = g[name].mean(0) if name in g else None
        update.step()


def trained(
    client: Client, images: Images, steps: Iterable[int], folder: Path, **options: Any
) -> dict[int, nn.Module]:
    """The same as a dictionary, step -> model; checkpoints that lie in `folder` are not repeated.

    options: those of `checkpoints`. Files are named after everything that training depends on.
    Raises ValueError where that has no stable description, as for a loss that is a lambda.
    """
    how = _how(client, images, options)
    files = {step: folder / f"{digest(how, step)}.safetensors" for step in _steps(steps)}
    missing = [step for step, path in files.items() if step and not path.exists()]
    if missing:
        for checkpoint in checkpoints(client, images, missing, **options):
            facts = {"dataset": images.name, "images": len(images), "how": how}
            save(checkpoint.model, files[checkpoint.step], step=checkpoint.step, **facts)
    models = {step: copy.deepcopy(client.model).eval() for step in files}
    for step in set(models) - {0}:  # training for 0 steps is the network itself
        load(models[step], files[step])
        made(models[step], how, step)
    return models


def _steps(steps: Iterable[int]) -> list[int]:
    """The steps in order, each once; ValueError for none, and for what is no step."""
    wanted = list(steps)
    whole = [isinstance(step, int | np.integer) and not isinstance(step, bool) for step in wanted]
    if not (wanted and all(whole) and min(wanted) >= 0):
        raise ValueError(
            f"checkpoints need training steps, whole numbers of at least 0, got {wanted}"
        )
    return sorted(set(wanted))


def _check(batch_size: int, lr: float, count: int) -> None:
    if not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise ValueError(f"a batch is a whole number of images, at least 1, got {batch_size!r}")
    if batch_size > count:
        raise ValueError(f"a batch of {batch_size} is larger than the {count} training images")
    check_number("lr", lr, "[0, inf)", "it is the learning rate")


def _how(client: Client, images: Images, options: Mapping[str, Any]) -> str:
    """What training depends on, but for its steps."""
    told = given(checkpoints, client, images.digests, steps=(), **options)
    return digest("trained", REVISION, told)


@torch.no_grad()
def accuracy(model: nn.Module, images: Images, batch_size: int = 500) -> float:
    """Share of images whose label has the largest logit. Raises ValueError for no images."""
    if not len(images):
        raise ValueError("there are no images to take the accuracy over: take some")
    device = next(model.parameters()).device
    guesses = [model(x.to(device)).argmax(1).cpu() for x in images.x.split(batch_size)]
    return (torch.cat(guesses) == images.y).sum().item() / len(images)


def _batches(count: int, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Batches of indices, each epoch in a new order; a last incomplete batch is left out."""
    rng = generator(BATCHES, seed)
    while True:
        order = torch.randperm(count, generator=rng)
        yield from order[: count - count % batch_size].split(batch_size)
