"""Training the attacked networks, with a gradient defense active, and keeping checkpoints."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from gradleak.client import Client, checks
from gradleak.data import Images
from gradleak.defenses import NoDefense
from gradleak.gradients import network
from gradleak.identity import UndescribableError, digest, given, made
from gradleak.models import load, save
from gradleak.randomness import BATCHES, generator
from gradleak.scales import check_kind, check_number, check_whole, refuse

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
    Raises ValueError for steps, a batch or a rate that are none, for images or labels that the
    model or its loss do not take, and where weights are no longer finite.
    """
    options = {"batch_size": batch_size, "optimizer": optimizer, "lr": lr, "seed": seed}
    how = ""  # of a network that nobody can make again: its weights tell
    with suppress(UndescribableError):
        how = _how(client, images, options)
    wanted = _steps(steps)
    _check(batch_size, lr, len(images))
    model = copy.deepcopy(client.model)
    device = next(model.parameters()).device
    worker = Client(model, client.defense, client.loss)
    first = images.x[:1].to(device)
    first = first if client.transform is None else client.transform(first, [(seed, 0, 0)])
    checks.check_labels(worker, first, images.y.to(device))
    update = _optimizer(optimizer, model, lr)
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
        _differentiate(worker, x, y, keys)
        update.step()


def trained(
    client: Client, images: Images, steps: Iterable[int], folder: Path, **options: Any
) -> dict[int, nn.Module]:
    """The same as a dictionary, step -> model; checkpoints that lie in `folder` are not repeated.

    options: those of `checkpoints`. Files are named after everything that training depends on.
    Raises ValueError where that has no stable description, as for a loss that is a lambda.
    """
    check_kind("folder", folder, (str, Path))
    how, folder = _how(client, images, options), Path(folder)
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
    check_kind("steps", steps, Iterable, "such as [0, 100]")
    wanted = list(steps)
    whole = [isinstance(step, int | np.integer) and not isinstance(step, bool) for step in wanted]
    if not (wanted and all(whole) and min(wanted) >= 0):
        raise ValueError(
            f"checkpoints need training steps, whole numbers of at least 0, got {wanted}"
        )
    return sorted(set(wanted))


def _differentiate(worker: Client, x: Tensor, y: Tensor, keys: Sequence[tuple[int, ...]]) -> None:
    """Leave the mean of what clients release on the worker's parameters."""
    model = worker.model
    if isinstance(worker.defense, NoDefense):
        # The mean of gradients is the gradient of the mean loss, taken as it usually is.
        worker.loss(model.train()(x), y).backward()
        model.eval()
        return
    g = worker.distribution(x, y).sample(keys)
    for name, parameter in model.named_parameters():
        parameter.grad = g[name].mean(0) if name in g else None


def _optimizer(make: Callable[..., Any], model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """An optimizer of the model's parameters; ValueError for what makes none that just steps."""
    if not callable(make):
        refuse("optimizer", "what makes an optimizer of parameters and lr", make, "torch.optim.SGD")
    update = None
    with suppress(TypeError):  # it is called otherwise
        update = make(model.parameters(), lr=lr)
    if not isinstance(update, torch.optim.Optimizer) or isinstance(update, torch.optim.LBFGS):
        refuse("optimizer", "one that makes an optimizer that steps without a closure", make)
    return update


def _check(batch_size: int, lr: float, count: int) -> None:
    check_whole("batch_size", batch_size, 1)
    if batch_size > count:
        raise ValueError(f"a batch of {batch_size} is larger than the {count} training images")
    check_number("lr", lr, "[0, 1e308]")


def _how(client: Client, images: Images, options: Mapping[str, Any]) -> str:
    """What training depends on, but for its steps; ValueError for no client or no images."""
    check_kind("client", client, Client)
    check_kind("images", images, Images)
    told = given(checkpoints, client, images.digests, steps=(), **options)
    return digest("trained", REVISION, told)


@torch.no_grad()
def accuracy(model: nn.Module, images: Images, batch_size: int = 500) -> float:
    """Share of images whose label has the largest logit.

    Raises ValueError for no images, a model in train mode, and one that gives no logits (N, C).
    """
    check_kind("model", model, nn.Module)
    check_kind("images", images, Images)
    check_whole("batch_size", batch_size, 1)
    if not len(images):
        raise ValueError("there are no images to take the accuracy over: take some")
    network.check_mode(model)
    device = next((p.device for p in model.parameters()), images.x.device)
    try:
        logits = torch.cat([model(x.to(device)).cpu() for x in images.x.split(batch_size)])
        if logits.shape != (len(images), logits[0].numel()):
            raise RuntimeError(f"it gives {tuple(logits.shape)}")
    except (RuntimeError, AttributeError, TypeError, IndexError) as error:
        raise ValueError(
            f"the model does not give logits (N, classes) for images {images.shape}: {error}"
        ) from error
    return (logits.argmax(1) == images.y).sum().item() / len(images)


def _batches(count: int, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Batches of indices, each epoch in a new order; a last incomplete batch is left out."""
    rng = generator(BATCHES, seed)
    while True:
        order = torch.randperm(count, generator=rng)
        yield from order[: count - count % batch_size].split(batch_size)
