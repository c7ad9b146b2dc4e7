import dataclasses

import pytest
import torch
from torch import nn

from gradleak import models
from gradleak.bench import cases, floor, measure
from gradleak.device.memory import LiveMemory, MovedMemory
from gradleak.experiment import Exported


@pytest.mark.parametrize(
    ("model", "shape", "least"),
    [
        # forward 2 x 3 x 4 = 24 operations and 2 x 4 x 2 = 16; the first layer counts 5 times
        (nn.Sequential(nn.Flatten(), nn.Linear(3, 4), nn.Linear(4, 2)), (1, 1, 3), 5 * 24 + 7 * 16),
        # 3 x 3 places, 4 weights each
        (nn.Sequential(nn.Conv2d(1, 1, 2)), (1, 4, 4), 5 * 2 * 9 * 4),
    ],
)
def test_least_arithmetic_by_hand(model, shape, least):
    assert floor.least_flops(model, shape) == least


def test_arithmetic_of_the_papers_networks():
    """Counted by hand for the three networks: 57, 81 and 191 million operations."""
    for build, shape, million in (
        (models.cnn, (1, 28, 28), 57),
        (models.cnn, (3, 32, 32), 81),
        (models.convbig, (3, 32, 32), 191),
    ):
        assert floor.least_flops(build(shape, 10), shape) / 1e6 == pytest.approx(million, abs=0.6)


def test_live_memory_counts_what_is_alive():
    with LiveMemory() as memory:
        a = torch.zeros(1000)
        b = a + 1
        view = b[:10]
        del a
        c = b * 2
    assert memory.peak == 8000
    assert memory.live == 8000
    del b, view, c
    assert memory.live == 0


def test_moved_memory_is_what_operations_read_and_write():
    a, b, column = torch.rand(10, 10), torch.rand(10, 10), torch.rand(10, 1)
    for operation, numbers in (
        (lambda: a + b, 300),
        (lambda: a @ b, 300),
        (lambda: a.T[2:].unsqueeze(0), 0),
        (lambda: a.add_(b), 300),
        (lambda: torch.mul(a, column.expand(10, 10)), 210),  # a column is read once
        (lambda: a[3].sum(), 11),
        (lambda: a.clone(), 200),
    ):
        with MovedMemory() as memory:
            operation()
        assert memory.moved == 4 * numbers


@pytest.mark.parametrize(
    ("released", "restarts", "few"),
    [(2, 3, (2, 3)), (256, 1, (64, 1)), (64, 16, (4, 16)), (1, 2048, (1, 64))],
)
def test_few_attacks_share_gradients_as_many_do(released, restarts, few):
    case = measure._few(cases.Case("cnn", (1, 28, 28), "cosine", released, restarts))
    assert (case.released, case.restarts) == few


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_cases_differ_and_cover_each_precision_where_a_device_is_busy(device):
    every = cases.every(torch.device(device))
    assert len(set(every)) == len(every)
    known = {"cpu": {"float32", "bfloat16"}, "cuda": {"float32", "tf32", "bfloat16"}}[device]
    for case in cases.busy(torch.device(device)):
        kept = [c.precision for c in every if dataclasses.replace(c, precision="float32") == case]
        assert set(kept) == known


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_row_for_each_case(tmp_path, precision):
    case = cases.Case("mlp", (1, 8, 8), "cosine", 2, 3, precision)
    cpu = torch.device("cpu")
    path = measure.write(tmp_path / "b.csv", measure.run(cpu, [case], 1, 1), cpu, "some command")
    (row,) = Exported(path).read().to_dict("records")
    assert row["precision"] == precision
    assert (row["attacks"], row["released"], row["path"]) == (6, 2, "captured")
    # the images, Adam's state and gradients of a 784-100-10 network: far below a copy each
    weights = sum(p.numel() for p in models.mlp((1, 8, 8), 10).parameters())
    assert 0 < row["mib_per_attack"] * 2**20 < 8 * 4 * weights
    # every step reads both released gradients
    assert row["mib_moved"] * 2**20 * 6 > 2 * 4 * weights
    assert row["floor_ms"] > 0
    assert 0 < row["copy_share"] < 10
    assert Exported(path).facts()["command"] == "some command"


def test_factors_keep_memory_per_attack_below_one_weight_copy():
    """64 attacks on one released gradient of convbig: no weight-sized tensor for each."""
    case = cases.Case("convbig", (3, 32, 32), "cosine", released=1, restarts=16)
    client, view = cases.released(case.given, torch.device("cpu"))
    adversary = cases.ADVERSARIES["cosine"](client)
    measure._engine(adversary, view, case, steps=1)  # the check against the general path is done
    assert measure._peak_bytes(adversary, view, case) < 0.25 * 4 * view.g.size


def test_a_compiled_step_is_the_engines(monkeypatch):
    # aot_eager does all that a compiler does with the step but for making machine code of it
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, mode: compiled(f, backend="aot_eager"))
    case = cases.Case("cnn", (1, 8, 8), "cosine", released=2, restarts=3)
    (row,) = measure.run_compiled(torch.device("cpu"), case, rounds=1)
    assert row["error"] < 1e-4
    assert row["eager_ms"] > 0
    assert row["compiled_ms"] > 0
