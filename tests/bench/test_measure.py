import math

import pytest
import torch

from gradleak import models
from gradleak.bench import cases, measure
from gradleak.device import LiveMemory
from gradleak.experiment import Exported


@pytest.mark.parametrize(
    ("released", "restarts", "few"),
    [(2, 3, (2, 3)), (256, 1, (64, 1)), (64, 16, (4, 16)), (1, 2048, (1, 64))],
)
def test_few_attacks_share_gradients_as_many_do(released, restarts, few):
    case = measure._few(cases.Case("cnn", (1, 28, 28), "cosine", released, restarts))
    assert (case.released, case.restarts) == few


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_row_for_each_case(tmp_path, precision):
    case = cases.Case("mlp", (1, 8, 8), "cosine", 2, 3, steps=2, precision=precision)
    cpu = torch.device("cpu")
    path = measure.write(tmp_path / "b.csv", measure.run(cpu, [case], 1), cpu, "some command")
    (row,) = Exported(path).read().to_dict("records")
    assert row["precision"] == precision
    assert (row["attacks"], row["released"], row["path"]) == (6, 2, "captured")
    # the images, Adam's state and gradients of a 784-100-10 network: far below a copy each
    weights = sum(p.numel() for p in models.mlp((1, 8, 8), 10).parameters())
    assert 0 < row["mib_per_attack"] * 2**20 < 8 * 4 * weights
    # every step reads both released gradients
    assert row["mib_moved"] * 2**20 * 6 > 2 * 4 * weights
    assert row["floor_ms"] > 0
    assert row["loop_best_ms"] <= row["loop_ms"]
    assert row["engine_best_ms"] <= row["engine_ms"]
    assert row["shipped_ms"] > 0
    assert math.isfinite(row["copy_share"])  # a measured time, which any load changes
    assert Exported(path).facts()["command"] == "some command"


@pytest.mark.slow
def test_factors_keep_memory_per_attack_below_one_weight_copy():
    """64 attacks on one released gradient of convbig: no weight-sized tensor for each."""
    case = cases.Case("convbig", (3, 32, 32), "cosine", released=1, restarts=16)
    view = cases.released(case.given, torch.device("cpu"))
    case.adversary(view.client, steps=1).attack(view)  # the check against the general path is done
    assert measure._bytes(case, view)[0] < 0.25 * 4 * view.g.size


@pytest.mark.slow
@pytest.mark.parametrize("belief", ["cosine", "L2", "L1"])
def test_one_attack_holds_less_than_half_of_its_gradient(belief):
    """Also to score it at the end, entry by entry: convbig has 47 MiB of weights."""
    case = cases.Case("convbig", (3, 32, 32), belief, released=1)
    view = cases.released(case.given, torch.device("cpu"))
    case.adversary(view.client, steps=1).attack(view)  # how to compute is found out
    with LiveMemory() as live:
        case.adversary(view.client, steps=2).attack(view)
    assert live.peak < 20 * 2**20


@pytest.mark.slow
def test_a_compiled_step_is_the_engines(monkeypatch):
    # aot_eager does all that a compiler does with the step but for making machine code of it
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, mode: compiled(f, backend="aot_eager"))
    case = cases.Case("cnn", (1, 8, 8), "cosine", released=2, restarts=3)
    (row,) = measure.run_compiled(torch.device("cpu"), case, rounds=1)
    assert row["error"] < 1e-4
    assert row["eager_ms"] > 0
    assert row["compiled_ms"] > 0
