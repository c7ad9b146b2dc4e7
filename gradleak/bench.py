"""What attacks cost: image-iterations per second and memory, against the usual loop.

Engine and loop run in turn in one process, so that ratios hold on a machine whose speed drifts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from tqdm import tqdm

from gradleak import gradients, models
from gradleak.attacks import Adversary, attack_all, log_posterior
from gradleak.batches import keep_blocks
from gradleak.client import Client, ServerView
from gradleak.climb import Adam
from gradleak.defenses import GaussianNoise
from gradleak.floor import copy_speed, least_flops, product_speed, wait
from gradleak.loop import usual_loop
from gradleak.memory import LiveMemory, MovedMemory
from gradleak.precision import products
from gradleak.presets import dlg, inverting_gradients, l1
from gradleak.priors import TotalVariation
from gradleak.randomness import START, generator
from gradleak.records import write_facts
from gradleak.version import __version__

PRIOR = TotalVariation(1e-3)
ADVERSARIES: dict[str, Callable[[Client], Adversary]] = {
    "cosine": lambda client: inverting_gradients(client, PRIOR, optimizer=Adam(steps=1)),
    "L2": lambda client: dlg(client, PRIOR, optimizer=Adam(steps=1)),
    "L1": lambda client: l1(client, PRIOR, optimizer=Adam(steps=1)),
}


@dataclass(frozen=True)
class Case:
    """A network, an attack, how many attacks on how many released gradients, a precision."""

    network: str
    shape: models.Shape
    belief: str
    released: int
    restarts: int
    precision: str = "float32"

    @property
    def attacks(self) -> int:
        """N."""
        return self.released * self.restarts


CNN_GREY, CNN_COLOUR = ("cnn", (1, 28, 28)), ("cnn", (3, 32, 32))
CONVBIG = ("convbig", (3, 32, 32))
CASES = (
    *(Case(*CNN_COLOUR, "cosine", n, 1) for n in (1, 4, 16, 64)),
    *(Case(*CNN_COLOUR, "cosine", 64, restarts) for restarts in (4, 16, 64)),
    Case(*CNN_COLOUR, "L2", 64, 1),
    Case(*CNN_COLOUR, "L1", 64, 1),
    *(Case(*CNN_GREY, belief, 64, 1) for belief in ADVERSARIES),
    *(Case(*CONVBIG, "cosine", n, 1) for n in (1, 8, 32)),
    Case(*CONVBIG, "cosine", 1, 64),
    Case(*CONVBIG, "L2", 32, 1),
)
BUSY = {
    "cpu": (Case(*CNN_COLOUR, "cosine", 64, 1), Case(*CONVBIG, "cosine", 32, 1)),
    "cuda": (Case(*CNN_COLOUR, "cosine", 64, 64), Case(*CONVBIG, "cosine", 256, 1),
             Case(*CONVBIG, "cosine", 1, 2048)),
}  # fmt: skip
STEPS = {"cpu": 3, "cuda": 30}  # of a measurement


def busy(device: torch.device) -> tuple[Case, ...]:
    """Cases that keep the device busy."""
    return BUSY.get(device.type, BUSY["cpu"])


def cases(device: torch.device) -> list[Case]:
    """What is measured there: each of its precisions in the cases that keep it busy."""
    held = busy(device)
    rounded = ("tf32", "bfloat16") if device.type == "cuda" else ("bfloat16",)
    more = [case for case in held if case not in CASES]
    return [*CASES, *more, *(replace(c, precision=p) for c in held for p in rounded)]


def run(
    device: torch.device, cases: Sequence[Case], rounds: int = 3, steps: int | None = None
) -> Iterator[dict[str, object]]:
    """Measure the cases; yield one row for each.

    A row holds milliseconds per image-iteration of engine and loop (medians over rounds), their
    ratio and its quartiles, the engine's peak memory per attack in MiB without what was released,
    and two shares of what the device can do, measured in the same round: of the floor, which is
    `least_flops` over the speed of matrix products, and of the copy speed, at which the bytes would
    move that a step's operations read and write. Only the engine takes the case's precision.
    """
    keep_blocks()  # as experiments do
    steps = steps or STEPS.get(device.type, STEPS["cpu"])
    for case in tqdm(cases, desc="bench", delay=2, disable=None):
        client, view = _released(case, device)
        adversary = ADVERSARIES[case.belief](client)
        engine, loop, speed, copies = [], [], [], []
        with products(case.precision):
            _engine(adversary, view, case, steps=1)
        for _ in range(rounds):
            copies.append(copy_speed(device))
            with products(case.precision):
                speed.append(product_speed(device))
                engine.append(_engine(adversary, view, case, steps) * 1e3)
            loop.append(_loop_seconds(client, view, case, 16 * STEPS["cpu"]) * 1e3)
        flops, moved = least_flops(client.model, case.shape), _moved_bytes(adversary, view, case)
        ratios = np.quantile(np.divide(loop, engine), (0.25, 0.5, 0.75)).round(2)
        yield {
            **_described(case, device),
            "path": gradients.path(client.model, _start(case, client)[:, None], view.y[:, None]),
            "engine_ms": round(median(engine), 4),
            "loop_ms": round(median(loop), 4),
            "ratio": ratios[1],
            "ratio_low": ratios[0],
            "ratio_high": ratios[2],
            "floor_ms": round(median(flops / s * 1e3 for s in speed), 4),
            "floor_share": round(median(flops / s / a * 1e3 for s, a in
                                        zip(speed, engine, strict=True)), 3),
            "copy_share": round(median(moved / c / a * 1e3 for c, a in
                                       zip(copies, engine, strict=True)), 3),
            "mib_moved": round(moved / 2**20, 2),
            "mib_per_attack": round(_peak_bytes(adversary, view, case) / 2**20, 2),
            "rounds": rounds,
            "steps": steps,
        }  # fmt: skip


def write(
    path: Path, rows: Iterable[dict[str, object]], device: torch.device, command: str
) -> Path:
    """Write the rows, and the facts of the run beside them."""
    begin = time.perf_counter()
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(path, index=False, lineterminator="\n")
    seconds = round(time.perf_counter() - begin, 1)
    write_facts(path, device, seconds=seconds, command=command, version=__version__)
    return path


def run_compiled(device: torch.device, case: Case, rounds: int = 5) -> Iterator[dict[str, object]]:
    """Measure one step written out as a graph and compiled, against the engine's; a row a round.

    On a graphics card the compiled step is one launch as well (a CUDA graph). The engine runs
    eagerly wherever this shows no gain. first_s: seconds of the first call.
    """
    keep_blocks()
    client, view = _released(case, device)
    adversary = ADVERSARIES[case.belief](client)
    x, y = (v.repeat_interleave(case.restarts, 0) for v in (_start(case, client), view.y))

    def step(x: Tensor, y: Tensor, *g: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        f = log_posterior(adversary, gradients.Gradient(dict(zip(view.g, g, strict=True))), y)
        return torch.autograd.grad(f(x, 0.0).sum(), x)[0]

    inputs = (x, y, *view.g.values())
    expected = step(*inputs)
    begin = time.perf_counter()
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    compiled = torch.compile(make_fx(step)(*inputs), mode=mode)
    error = (compiled(*inputs) - expected).norm() / expected.norm()
    first = time.perf_counter() - begin
    for _ in range(rounds):
        eager, fused = (_seconds(lambda f=f: f(*inputs), device) for f in (step, compiled))
        yield {
            **_described(case, device),
            "eager_ms": round(eager / case.attacks * 1e3, 4),
            "compiled_ms": round(fused / case.attacks * 1e3, 4),
            "first_s": round(first, 1),
            "error": float(f"{error:.1e}"),
        }


def _seconds(f: Callable[[], object], device: torch.device, count: int = 5) -> float:
    begin = time.perf_counter()
    for _ in range(count):
        f()
    wait(device)
    return (time.perf_counter() - begin) / count


def _described(case: Case, device: torch.device) -> dict[str, object]:
    return {
        "network": case.network,
        "shape": "x".join(map(str, case.shape)),
        "belief": case.belief,
        "attacks": case.attacks,
        "released": case.released,
        "precision": case.precision,
        "device": device.type,
    }


def _released(case: Case, device: torch.device) -> tuple[Client, ServerView]:
    model = getattr(models, case.network)(case.shape, 10).to(device)
    x = torch.rand((case.released, *case.shape), generator=generator(START, 0))
    client = Client(model, GaussianNoise(0.01))
    y = torch.arange(case.released) % 10
    parts = [
        client.release(a, b, key=key.tolist())
        for a, b, key in zip(
            x.split(64), y.split(64), torch.arange(case.released).split(64), strict=True
        )
    ]
    g = parts[0].g.map(lambda *v: torch.cat(v), *(p.g for p in parts[1:]))
    key = tuple(range(case.released))
    return client, replace(parts[0], g=g, y=torch.cat([p.y for p in parts]), key=key)


def _start(case: Case, client: Client) -> Tensor:
    return torch.rand((case.released, *case.shape)).to(next(client.model.parameters()))


def _engine(adversary: Adversary, view: ServerView, case: Case, steps: int) -> float:
    """Seconds per image-iteration of the engine; the difference of two runs leaves out set-up."""

    def seconds(count: int) -> float:
        begin = time.perf_counter()
        _steps(adversary, view, case.restarts, count)
        wait(view.y.device)
        return time.perf_counter() - begin

    return (seconds(steps + 1) - seconds(1)) / steps / case.attacks


def _loop_seconds(client: Client, view: ServerView, case: Case, count: int) -> float:
    """Seconds per image-iteration of the usual loop."""
    step = usual_loop(client.model, view, case.belief, PRIOR, _start(case, client)[:1])
    step()
    return _seconds(step, view.y.device, count)


def _peak_bytes(adversary: Adversary, view: ServerView, case: Case) -> float:
    """Peak bytes of one step for each attack, without what was released and lay there before."""
    few = _few(case)
    part = view[: few.released]
    with LiveMemory() as memory:
        _steps(adversary, part, few.restarts, 1)
    return memory.peak / few.attacks


def _moved_bytes(adversary: Adversary, view: ServerView, case: Case) -> float:
    """Bytes that the operations of one step read and write, for each attack."""
    few = _few(case)

    def moved(steps: int) -> int:
        with MovedMemory() as memory:
            _steps(adversary, view[: few.released], few.restarts, steps)
        return memory.moved

    return (moved(2) - moved(1)) / few.attacks


def _few(case: Case, most: int = 64) -> Case:
    """The same with few attacks, of which as many share a released gradient."""
    restarts = min(case.restarts, most)
    return replace(case, released=min(case.released, most // restarts), restarts=restarts)


def _steps(adversary: Adversary, view: ServerView, restarts: int, count: int) -> None:
    climb = replace(adversary, optimizer=replace(adversary.optimizer, steps=count))
    attack_all([(climb, view)], restarts=restarts)
