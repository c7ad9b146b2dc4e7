"""Computations that are recorded and replayed, against the same ones run as they stand."""

import gc
import re

import pytest
import torch
import zoo
from torch.utils._python_dispatch import TorchDispatchMode

import gradleak as gl
from gradleak.device import LiveMemory
from gradleak.gradients import plain
from gradleak.gradients.replay import Replayed, repays


def slopes(make, shape):
    """A client's likelihood and its slope, as an attack climbs it."""
    torch.manual_seed(0)
    model = make()
    x, y = torch.rand(2, *shape), torch.tensor([0, 1])
    client = gl.Client(model.eval(), gl.GaussianNoise(0.1))
    view = client.release(x, y)

    def run(x):
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            value = client.log_prob(view.g, x, y)
            return value.detach(), plain.slope(value.sum(), x)

    return run, x


@pytest.mark.parametrize("name", sorted({**zoo.CAPTURED, **zoo.GENERAL}))
def test_so_is_the_likelihood_of_every_network(name):
    run, x = slopes(*{**zoo.CAPTURED, **zoo.GENERAL}[name])
    run(x)  # how gradients are computed is found out before anything is recorded
    replayed = Replayed(run)
    for k in range(4):
        some = (x + k).cos().abs()
        for found, expected in zip(replayed(some), run(some), strict=True):
            assert found.equal(expected)
    assert not replayed.refused


READS = {
    "a value": (lambda x: (x * 2 if x.sum() > 0 else x,), "_local_scalar_dense"),
    "numpy": (lambda x: (x + torch.from_numpy(x.numpy() * 2),), "numpy"),
    "list": (lambda x: (x + sum(x.tolist()),), "tolist"),
}


@pytest.mark.parametrize("name", READS)
def test_what_is_read_into_python_is_run_as_it_stands(name):
    run, reads = READS[name]
    replayed = Replayed(run)
    for k in (1.0, -1.0, 2.0):
        x = torch.full((3,), k)
        assert replayed(x)[0].equal(run(x)[0])
    assert re.search(f"{reads}.* reads a value into Python", replayed.refused)


def test_what_differs_when_it_is_replayed_is_said_and_not_used():
    seen = []

    def run(x):
        seen.append(len(seen))
        return (x * seen[-1],)

    replayed = Replayed(run)
    x = torch.ones(3)
    assert replayed(x)[0].equal(0 * x)
    with pytest.warns(UserWarning, match="goes on without its record"):
        assert replayed(x)[0].equal(1 * x)
    assert replayed(x)[0].equal(2 * x)


def test_so_is_what_fails_when_it_is_replayed():
    def run(x):
        return (x.cos(),)

    replayed, x = Replayed(run), torch.rand(3)
    replayed(x)
    replayed._plan = lambda x: (x.reshape(7),)
    with pytest.warns(UserWarning, match="without its record.*invalid for input of size 3"):
        assert replayed(x)[0].equal(x.cos())
    assert replayed(x)[0].equal(x.cos())


def test_other_layouts_are_run_as_they_stand():
    calls = []

    def run(x):
        calls.append(x.shape)
        return (x.t().contiguous() * 2,)

    replayed, x = Replayed(run), torch.rand(3, 4)
    replayed(x), replayed(x), replayed(x)
    assert len(calls) == 2
    for other in (torch.rand(4, 3).t(), torch.rand(5, 4), torch.rand(3, 4).double()):
        assert replayed(other)[0].equal(other.t() * 2)
    assert len(calls) == 5


class OnePlace(TorchDispatchMode):
    """Refuses operations on tensors of two devices, numbers aside."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = [t for t in (*args, *(kwargs or {}).values()) if isinstance(t, torch.Tensor)]
        assert len({t.device for t in given if t.ndim}) < 2, function
        return function(*args, **(kwargs or {}))


def test_it_runs_under_other_modes_and_takes_no_more_memory():
    run, x = slopes(lambda: gl.models.cnn((1, 8, 8), 3), (1, 8, 8))
    run(x)
    replayed = Replayed(run)
    replayed(x), replayed(x + 0.1)
    with OnePlace():
        assert replayed(x)[1].equal(run(x)[1])
    peaks = []
    for of in (run, replayed):
        gc.collect()
        with LiveMemory() as memory:
            of(x)
        peaks.append(memory.peak)
    assert peaks[1] <= peaks[0]


def test_a_few_calls_do_not_repay_and_many_do(monkeypatch):
    monkeypatch.delenv("GRADLEAK_REPLAY", raising=False)
    assert not repays(1)
    assert repays(10**6)
    monkeypatch.setenv("GRADLEAK_REPLAY", "0")
    assert not repays(10**6)


def test_measuring_leaves_the_random_numbers_alone():
    state = torch.get_rng_state()
    gl.gradients.replay._calls_that_repay.__wrapped__()
    assert state.equal(torch.get_rng_state())
