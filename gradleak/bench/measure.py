"""What attacks cost: time and memory of a step, against the usual loop.

All run in turn, so that ratios hold on a machine whose speed drifts.
"""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from tqdm import tqdm

from gradleak import gradients
from gradleak.attacks import Adam, log_posterior
from gradleak.bench.breaching import step_seconds
from gradleak.bench.cases import PRIOR, Case, Given, released, start
from gradleak.bench.floor import copy_speed, least_flops, product_speed, seconds
from gradleak.bench.loop import usual_loop
from gradleak.client import ServerView
from gradleak.device import LiveMemory, MovedMemory, keep_blocks, products, threads
from gradleak.experiment import Exported, made

MANY = 16  # attacks that keep all cores busy
LOOPED = 24  # steps of the loop, and of other packages, that are timed


def run(
    device: torch.device, cases: Sequence[Case], rounds: int = 3
) -> Iterator[dict[str, object]]:
    """Measure the cases; yield one row for each.

    A row holds milliseconds for a step of one attack. engine: a whole attack, with all that is
    done before its first step and after its last, over its steps. loop: the usual one. Both with
    the threads that they come with and, `_best`, with one or all, whichever is quicker. shipped:
    the loop in a process that gives memory back to the system as processes do. breaching: that
    package's, nan where it is not installed. ratio: of loop and engine, with quartiles, and of
    both at their best. Where attacks are many, the engine is at its best by itself.

    mib_per_attack: the engine's peak without what was released. Two shares of what the device can
    do: of the floor, which is `least_flops` over the speed of matrix products, and of the copy
    speed, at which the bytes would move that a step's operations read and write. All are medians
    over rounds; each round goes through all cases, so that none has the quiet minutes to itself.
    Only the engine takes the case's precision.
    """
    keep_blocks()  # as experiments do
    settings = [(case, _view(case.given, device), []) for case in cases]
    for case, view, _ in settings:  # the first time takes longer
        with products(case.precision):
            case.adversary(view.client, steps=1).attack(view)
    with ProcessPoolExecutor(1, get_context("spawn")) as other:
        for _ in tqdm(range(rounds), desc="bench", delay=2, disable=None):
            alone = cache(partial(_alone, other))  # many cases are one to the loop
            for case, view, turns in settings:
                turns.append(_round(case, view) | alone(_one(case), device))
    for case, view, turns in settings:
        yield _row(case, view, pd.DataFrame(turns))


def _row(case: Case, view: ServerView, turns: pd.DataFrame) -> dict[str, object]:
    model, x = view.client.model, start(view)
    flops = least_flops(model, case.shape) * (case.batch or 1)
    peak, moved = _bytes(case, view)
    best = {
        way: turns[[c for c in turns if c in (way, f"{way}_one")]].median().min()
        for way in ("engine", "loop")
    }
    ratio = (turns.loop / turns.engine).quantile([0.25, 0.5, 0.75]).round(2)
    times = turns[["engine", "loop", "shipped", "breaching"]].median() * 1e3
    return {
        **_described(case, view.y.device),
        "path": view.client.path(x, view.y),
        **{f"{way}_ms": round(time, 4) for way, time in times.items()},
        **{f"{way}_best_ms": round(float(time) * 1e3, 4) for way, time in best.items()},
        "ratio": ratio[0.5],
        "ratio_low": ratio[0.25],
        "ratio_high": ratio[0.75],
        "ratio_best": round(best["loop"] / best["engine"], 2),
        "floor_ms": round((flops / turns.products).median() * 1e3, 4),
        "floor_share": round((flops / turns.products / turns.engine).median(), 3),
        "copy_share": round((moved / turns.copies / turns.engine).median(), 3),
        "mib_moved": round(moved / 2**20, 2),
        "mib_per_attack": round(peak / 2**20, 2),
        "rounds": len(turns),
        "steps": case.steps,
    }


def _round(case: Case, view: ServerView) -> dict[str, float]:
    """Seconds for a step of one attack, and what the device does in a second just then."""
    device, found = view.y.device, {}
    found["copies"] = copy_speed(device)
    with products(case.precision):
        found["products"] = product_speed(device)
        found["engine"] = _engine(case, view)
        if device.type == "cpu" and case.attacks < MANY:
            with threads(1):
                found["engine_one"] = _engine(case, view)
    return found


def _one(case: Case) -> Case:
    """What of a case is the same where one client is attacked at a time."""
    steps = min(LOOPED, case.steps)
    return replace(case, released=1, restarts=1, steps=steps, precision="float32")


def _alone(other: Executor, case: Case, device: torch.device) -> dict[str, float]:
    """Seconds that one attack at a time takes for a step."""
    view, on_cpu = _view(case.given, device), device.type == "cpu"
    found = {"loop": _loop(case, view)}
    if on_cpu:
        with threads(1):
            found["loop_one"] = _loop(case, view)
    comparable = case.belief == "cosine" and case.batch is None
    return found | {
        "shipped": other.submit(_shipped, case).result() if on_cpu else math.nan,
        "breaching": step_seconds(view, _few_steps(case)) if comparable else math.nan,
    }


def _engine(case: Case, view: ServerView) -> float:
    attack = case.adversary(view.client)
    whole = seconds(lambda: attack.attack(view), view.y.device, 1)
    return whole / case.steps / case.attacks


def _loop(case: Case, view: ServerView) -> float:
    adam = Adam(steps=LOOPED)
    _, step = usual_loop(view, case.belief, PRIOR, start(view)[:1], adam)
    step(0)
    return seconds(lambda: step(0), view.y.device, _few_steps(case))


def _few_steps(case: Case) -> int:
    """Of what attacks one client at a time; their times differ little."""
    return max(3, case.steps // (case.batch or 1))


def _shipped(case: Case) -> float:
    """The loop in a process of its own, which `keep_blocks` has not touched."""
    return _loop(case, _view(case.given, torch.device("cpu")))


@cache
def _view(given: Given, device: torch.device) -> ServerView:
    return released(given, device)


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
        "batch": case.batch or 1,
        "precision": case.precision,
        "device": device.type,
    }


def _bytes(case: Case, view: ServerView) -> tuple[float, float]:
    """Peak bytes of one step for each attack, and bytes that its operations read and write.

    What was released and lay there before is not in the peak.
    """
    few, moved = _few(case), []
    some = view[: few.released]
    for steps in (2, 1):
        with LiveMemory() as live, MovedMemory() as memory:
            few.adversary(view.client, steps).attack(some)
        moved.append(memory.moved)
    return live.peak / few.attacks, (moved[0] - moved[1]) / few.attacks


def _few(case: Case, most: int = 64) -> Case:
    """The same with few attacks, of which as many share a released gradient."""
    restarts = min(case.restarts, most)
    return replace(case, released=min(case.released, most // restarts), restarts=restarts)
