"""What attacks cost: image-iterations per second and memory, against the usual loop.

Engine and loop run in turn in one process, so that ratios hold on a machine whose speed drifts.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from tqdm import tqdm

from gradleak import gradients
from gradleak.attacks import log_posterior
from gradleak.bench.cases import PRIOR, STEPS, Case, released, start
from gradleak.bench.floor import copy_speed, least_flops, product_speed, seconds
from gradleak.bench.loop import usual_loop
from gradleak.client import ServerView
from gradleak.device import LiveMemory, MovedMemory, keep_blocks, products
from gradleak.experiment import Exported, made


def run(
    device: torch.device, cases: Sequence[Case], rounds: int = 3, steps: int | None = None
) -> Iterator[dict[str, object]]:
    """Measure the cases; yield one row for each.

    A row holds milliseconds per image-iteration of engine and loop, their ratio and its quartiles,
    the engine's peak memory per attack in MiB without what was released, and two shares of what the
    device can do: of the floor, which is `least_flops` over the speed of matrix products, and of
    the copy speed, at which the bytes would move that a step's operations read and write. All are
    medians over rounds; each round goes through all cases, so that none has the quiet minutes to
    itself. Only the engine takes the case's precision.
    """
    keep_blocks()  # as experiments do
    steps = steps or STEPS.get(device.type, STEPS["cpu"])
    given = cache(released)
    settings = [(case, given(case.given, device), []) for case in cases]
    for case, view, _ in settings:  # the first time takes longer
        with products(case.precision):
            _engine(case, view, steps=1)
    for case, view, turns in tqdm(settings * rounds, desc="bench", delay=2, disable=None):
        turns.append(_round(case, view, steps))
    for case, view, turns in settings:
        model, x = view.client.model, start(view)
        flops = least_flops(model, case.shape)
        peak, moved = _bytes(case, view)
        table = pd.DataFrame(turns)
        ratio = (table.loop / table.engine).quantile([0.25, 0.5, 0.75]).round(2)
        yield {
            **_described(case, device),
            "path": gradients.path(model, x[:, None], view.y[:, None]),
            "engine_ms": round(table.engine.median() * 1e3, 4),
            "loop_ms": round(table.loop.median() * 1e3, 4),
            "ratio": ratio[0.5],
            "ratio_low": ratio[0.25],
            "ratio_high": ratio[0.75],
            "floor_ms": round((flops / table.products).median() * 1e3, 4),
            "floor_share": round((flops / table.products / table.engine).median(), 3),
            "copy_share": round((moved / table.copies / table.engine).median(), 3),
            "mib_moved": round(moved / 2**20, 2),
            "mib_per_attack": round(peak / 2**20, 2),
            "rounds": rounds,
            "steps": steps,
        }


def _round(case: Case, view: ServerView, steps: int) -> dict[str, float]:
    """Seconds per image-iteration of both, and what the device does in a second just then."""
    device = view.y.device
    found = {"copies": copy_speed(device)}
    with products(case.precision):
        found["products"] = product_speed(device)
        found["engine"] = _engine(case, view, steps)
    step = usual_loop(view, case.belief, PRIOR, start(view)[:1])
    step()
    return {**found, "loop": seconds(step, device, 16 * STEPS["cpu"])}


def write(
    path: Path, rows: Iterable[dict[str, object]], device: torch.device, command: str
) -> Path:
    """Write the rows, and the facts of the run beside them."""
    begin = time.perf_counter()
    table = pd.DataFrame(rows)  # measured as it is read
    took = round(time.perf_counter() - begin, 1)
    facts = {"seconds": took, "command": command, "rows": len(table), **made(device)}
    Exported(path).write(table, facts)
    return path


def run_compiled(device: torch.device, case: Case, rounds: int = 5) -> Iterator[dict[str, object]]:
    """Measure one step written out as a graph and compiled, against the engine's; a row a round.

    On a graphics card the compiled step is one launch as well (a CUDA graph). The engine runs
    eagerly wherever this shows no gain. first_s: seconds of the first call.
    """
    keep_blocks()
    view = released(case.given, device)
    adversary = case.adversary(view.client, steps=1)
    x, y = (v.repeat_interleave(case.restarts, 0) for v in (start(view), view.y))

    def step(x: Tensor, y: Tensor, *g: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        f = log_posterior(adversary, gradients.Gradient(dict(zip(view.g, g, strict=True))), y)
        return torch.autograd.grad(f(x).sum(), x)[0]

    inputs = (x, y, *view.g.values())
    expected = step(*inputs)
    begin = time.perf_counter()
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    graph = torch.compile(make_fx(step)(*inputs), mode=mode)

    @torch.no_grad()  # the graph holds its derivatives; the compiler would add those of all of it
    def compiled(*inputs: Tensor) -> Tensor:
        return graph(*inputs)

    error = (compiled(*inputs) - expected).norm() / expected.norm()
    first = time.perf_counter() - begin
    for _ in range(rounds):
        eager, fused = (seconds(lambda f=f: f(*inputs), device) for f in (step, compiled))
        yield {
            **_described(case, device),
            "eager_ms": round(eager / case.attacks * 1e3, 4),
            "compiled_ms": round(fused / case.attacks * 1e3, 4),
            "first_s": round(first, 1),
            "error": float(f"{error:.1e}"),
        }


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


def _engine(case: Case, view: ServerView, steps: int) -> float:
    """Seconds per image-iteration of the engine; the difference of two runs leaves out set-up."""
    long, short = (
        seconds(lambda n=n: case.adversary(view.client, n).attack(view), view.y.device, 1)
        for n in (steps + 1, 1)
    )
    return (long - short) / steps / case.attacks


def _bytes(case: Case, view: ServerView) -> tuple[float, float]:
    """Peak bytes of one step for each attack, and bytes that its operations read and write.

    What was released and lay there before is not in the peak.
    """
    few = _few(case)
    moved = []
    for steps in (2, 1):
        with LiveMemory() as live, MovedMemory() as memory:
            few.adversary(view.client, steps).attack(view[: few.released])
        moved.append(memory.moved)
    return live.peak / few.attacks, (moved[0] - moved[1]) / few.attacks


def _few(case: Case, most: int = 64) -> Case:
    """The same with few attacks, of which as many share a released gradient."""
    restarts = min(case.restarts, most)
    return replace(case, released=min(case.released, most // restarts), restarts=restarts)
