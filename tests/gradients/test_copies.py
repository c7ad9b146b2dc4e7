"""Copies are made once, and again after whatever changes what a network computes."""

import gc
import weakref

import pytest
import torch
from torch import nn

from gradleak.gradients import in_float64, rounded
from gradleak.gradients.copies import kept


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).eval()


CHANGES = {
    "a weight": lambda m: m[0].weight.mul_(2),
    "a buffer": lambda m: m[1].running_mean.add_(1),
    "another parameter": lambda m: setattr(m[0], "bias", nn.Parameter(torch.ones(4))),
    "a layer": lambda m: m.__setitem__(2, nn.Tanh()),
    "a hook": lambda m: m[0].register_forward_hook(lambda *args: 2 * args[2]),
    "a setting": lambda m: setattr(m[1], "eps", 0.5),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_copy_is_made_anew_after_a_change_of(model, what):
    made = []

    def make():
        made.append(nn.Identity())
        return made[-1]

    assert kept(model, "kind", make) is kept(model, "kind", make) is made[0]
    with torch.no_grad():
        CHANGES[what](model)
    assert kept(model, "kind", make) is made[1]
    assert kept(model, "other", make) is made[2]


def test_none_stands_for_the_model_itself(model):
    assert kept(model, "kind", lambda: None) is model
    assert kept(model, "kind", lambda: pytest.fail("made again")) is model


def test_copies_do_not_keep_their_model_alive():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    copies = in_float64(model), rounded(model, torch.rand(5, 3), 0.3)
    dead = weakref.ref(model)
    del model
    gc.collect()
    assert dead() is None
    assert copies[1](torch.rand(1, 3)).shape == (1, 4)


def test_a_copy_computes_what_its_network_does_after_a_change(model):
    x = torch.rand(5, 3)
    in_float64(model)
    model[0].register_forward_hook(lambda *args: 2 * args[2])
    torch.testing.assert_close(in_float64(model)(x.double()).float(), model(x))
