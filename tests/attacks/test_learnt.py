"""When learnt attacks are trained, and what they are named after."""

from dataclasses import replace

import pytest
import torch
from torch import nn

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


@both
def test_views_that_it_was_not_trained_for_are_refused(make):
    attack = make(client())
    view = client().release(TEST.x, TEST.y)
    flat = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), *client().model)
    attack_of_rows = make(gl.Client(flat, gl.GaussianNoise(0.1)))
    for wrong, said in (
        (replace(view, y=torch.eye(10)[:3]), "trained on labels 0 to 9"),
        (replace(view, g=view.g.without(["dense2"])), r"lacks dense2\.weight.*Ignore"),
        (view.without_labels(), "needs labels"),
    ):
        with pytest.raises(ValueError, match=said):
            attack.attack(wrong)
    wide = gl.Client(gl.models.mlp(TEST.shape, 12, (12,)), gl.GaussianNoise(0.1))
    with pytest.raises(ValueError, match=r"trained on labels 0 to 9.* up to 11"):
        make(wide).attack(wide.release(TEST.x, torch.tensor([0, 1, 11])))
    rows = attack_of_rows.client.release(TEST.x.flatten(1), TEST.y)
    with pytest.raises(ValueError, match=r"images \(1, 8, 8\), this view's x is \(64,\)"):
        attack_of_rows.attack(rows)
