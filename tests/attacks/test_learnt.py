"""When learnt attacks are trained, and what they are named after."""

import pytest
import torch

import gradleak as gl
from gradleak.experiment import Records, run
from gradleak.identity import digest

TRAIN = gl.data.load("digits", "train").take(range(80))
TEST = gl.data.load("digits", "test").take(range(3))


def client(scale=0.1, seed=0):
    return gl.Client(gl.models.mlp(TEST.shape, 10, (12,), seed=seed), gl.GaussianNoise(scale))


def unrolled(client, **options):
    return gl.Unrolled(client, gl.GaussianNoise, TRAIN, 0.05, 0.2, stages=1, steps=2, **options)


def amortised(client, **options):
    return gl.Amortised(client, TRAIN, 0.05, 0.2, rank=8, steps=2, width=8, **options)


both = pytest.mark.parametrize("make", [unrolled, amortised])


@both
def test_rows_that_are_there_cost_no_training(make, tmp_path):
    records = Records(tmp_path, "learnt")
    first, again = make(client()), make(client())
    rows, same = (
        run([gl.Trial(client(scale), attack, TEST, {"scale": scale}) for scale in (0.1, 0.2)],
            records)
        for attack in (first, again)
    )  # fmt: skip
    assert "learnt" in vars(first)
    assert "learnt" not in vars(again)
    assert len(rows) == 6
    assert rows.equals(same)


@both
def test_a_network_that_changes_later_changes_neither_name_nor_answer(make):
    one, other = client(), client()
    early, late = make(one), make(other)
    view, name = one.release(TEST.x, TEST.y), digest(early)
    answer = early.attack(view).x
    with torch.no_grad():
        other.model.get_parameter("dense1.weight").mul_(2)
    assert digest(late) == name
    assert torch.equal(late.attack(view).x, answer)
    assert digest(make(other)) != name


@both
def test_the_name_says_for_whom_and_how_it_was_trained(make):
    names = [
        digest(make(client(seed=seed), **options))
        for seed, options in ((0, {}), (1, {}), (0, {"seed": 1}), (0, {"lr": 1e-2}))
    ]
    assert len(set(names)) == 4
    assert digest(make(client(0.2))) == names[0]  # it is trained for all scales
