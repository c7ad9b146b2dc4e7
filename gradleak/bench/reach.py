"""How long attacks of growing length take, and how near they come: seconds to a PSNR."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from gradleak import data, models
from gradleak.attacks import Adam, inverting_gradients
from gradleak.bench.loop import usual_loop
from gradleak.client import Client, ServerView
from gradleak.device import keep_blocks
from gradleak.metrics import psnr
from gradleak.priors import IMAGES
from gradleak.randomness import START, generator

IMAGES_ATTACKED = 8
LENGTHS = (25, 50, 100, 200, 400)  # steps
DATASET = "cifar10"


def beside(path: Path) -> Path:
    """The record of these seconds, beside the one of steps."""
    name = path.name
    return path.with_name(name.replace("bench", "reach", 1) if "bench" in name else f"reach-{name}")


def attacked() -> data.Images:
    """Test images of CIFAR-10. Raises FileNotFoundError where they can not be had."""
    return data.load(DATASET, "test").take(range(IMAGES_ATTACKED))


def run(images: data.Images, device: torch.device, rounds: int = 3) -> Iterator[dict[str, object]]:
    """Attack images, undefended, by the engine and by the usual loop.

    Both climb the cosine, with signed steps whose rate falls to a hundredth, from the same starts.
    A row holds the mean PSNR in dB and the median seconds of all images.
    """
    keep_blocks()
    client = Client(models.cnn(images.shape, images.classes).to(device))
    view = client.release(images.x.to(device), images.y.to(device))
    ways = {"engine": _together, "loop": _one_by_one}
    for length in LENGTHS:
        adam = Adam(steps=length, lr=0.1, decay=0.01 ** (1 / length), signed=True)
        turns = [
            (way, *_timed(partial(f, view, adam))) for _ in range(rounds) for way, f in ways.items()
        ]
        for way in ways:
            took, found = zip(*((s, x) for w, s, x in turns if w == way), strict=True)
            yield {
                "way": way,
                "steps": length,
                "seconds": round(float(torch.tensor(took).median()), 3),
                "psnr": round(float(psnr(found[-1], images.x).mean()), 2),
                "dataset": images.name,
                "images": len(images),
                "network": "cnn",
                "rounds": rounds,
                "device": device.type,
            }


def _timed(attack: Callable[[], Tensor]) -> tuple[float, Tensor]:
    begin = time.perf_counter()
    found = attack().cpu()  # waits for the device
    return time.perf_counter() - begin, found


def _together(view: ServerView, adam: Adam) -> Tensor:
    return inverting_gradients(view.client, IMAGES, optimizer=adam).attack(view).x


def _one_by_one(view: ServerView, adam: Adam) -> Tensor:
    return torch.cat([_alone(view[[n]], adam) for n in range(len(view))])


def _alone(view: ServerView, adam: Adam) -> Tensor:
    draw = torch.rand(
        1, *view.shape, dtype=torch.float32, generator=generator(START, 0, *view.key, 0)
    )
    x, step = usual_loop(view, "cosine", IMAGES, draw.to(view.y.device), adam)
    for count in range(adam.steps):
        step(count)
    return x.detach()
