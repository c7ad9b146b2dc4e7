import copy
from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gradleak as gl

X, Y = gl.data.batch("digits", range(20))
SHAPE = (1, 8, 8)
LR = 0.01


def network(seed=0):
    torch.manual_seed(seed)
    parts = {"flat": nn.Flatten(), "dense1": nn.Linear(64, 16), "act": nn.Tanh(),
             "dense2": nn.Linear(16, 10)}  # fmt: skip
    return nn.Sequential(OrderedDict(parts))


def weights_after(model, x, y, optimizer=torch.optim.SGD, steps=1):
    model = copy.deepcopy(model)
    update = optimizer(model.parameters(), lr=LR)
    for _ in range(steps):
        update.zero_grad()
        F.cross_entropy(model(x), y).backward()
        update.step()
    return model.state_dict()


def difference(model, **how):
    """Weights before minus those after, of each of twenty clients."""
    before = model.state_dict()
    each = [weights_after(model, x[None], y[None], **how) for x, y in zip(X, Y, strict=True)]
    return {k: before[k] - torch.stack([after[k] for after in each]) for k in before}


def over_lr(change):
    return {k: v / LR for k, v in change.items()}


SENT = {
    "right": lambda: over_lr(difference(network())),
    "five local steps": lambda: over_lr(difference(network(), steps=5)),
    "a step of Adam": lambda: over_lr(difference(network(), optimizer=torch.optim.Adam)),
    "a difference, not over lr": lambda: difference(network()),
    "other weights": lambda: over_lr(difference(network(seed=1))),
    "the other way round": lambda: {k: -v for k, v in over_lr(difference(network())).items()},
}
DEFENSES = {
    "exact": gl.NoDefense(),
    "noisy": gl.GaussianNoise(0.01),
    "laplace": gl.LaplaceNoise(0.01),
}


@pytest.mark.parametrize(
    "defense", ["exact", "noisy", pytest.param("laplace", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("sent", SENT)
def test_only_what_the_client_sends_is_explained(sent, defense):
    """Twenty clients of each kind, attacked under their own description."""
    client = gl.Client(network(), DEFENSES[defense])
    g = gl.Gradient(SENT[sent]())
    g = client.defense(g).sample([(7, k) for k in range(20)])
    view = client.view(g, Y, shape=SHAPE)
    believed = client if defense == "noisy" else replace(client, defense=gl.GaussianNoise(0.01))
    found = gl.bayes(believed, gl.Box(), optimizer=gl.Adam(steps=100, lr=0.07)).attack(view)
    told = gl.fit(view, found)
    expected = 20 if sent == "right" else 0
    assert told.explained.sum() == expected
    assert (told.deviations is None) == (defense == "exact")


@pytest.mark.parametrize("scale", [0.001, 0.03])
@pytest.mark.parametrize("family", [gl.GaussianNoise, gl.LaplaceNoise])
def test_at_the_private_image_deviations_are_standard_normal(family, scale):
    """And the residual, of which noise is taken off, is small."""
    client = gl.Client(network(), family(scale))
    told = [gl.fit(client.release(X, Y, seed=s), X, seed=s) for s in range(5)]
    deviations = torch.cat([t.deviations for t in told])
    # A mean and deviation of twenty draws make it Student's t with 19 degrees of freedom, scaled.
    assert abs(deviations.mean()) < 4 * (1.1 / 100) ** 0.5
    assert 0.8 < deviations.std() < 1.5
    assert all(t.explained.all() for t in told)


def test_without_noise_the_residual_is_the_distance_of_gradients():
    client = gl.Client(network())
    view, other = client.release(X, Y), X.flip(-1)
    told = gl.fit(view, other)
    for n in range(20):
        g, h = (
            torch.cat([v.flatten() for v in torch.autograd.grad(
                F.cross_entropy(client.model(x[n : n + 1]), Y[n : n + 1]),
                [*client.model.parameters()])])
            for x in (X, other)
        )  # fmt: skip
        assert told.residual[n].item() == pytest.approx(
            ((g - h).norm() / h.norm()).item(), rel=1e-3
        )
    assert (gl.fit(view, X).residual < 1e-5).all()


@pytest.mark.parametrize("scale", [0.001, 0.01])
def test_noise_is_taken_off_the_residual(scale):
    other = X.flip(-1)
    exact = gl.fit(gl.Client(network()).release(X, Y), other).residual
    noisy = gl.fit(gl.Client(network(), gl.GaussianNoise(scale)).release(X, Y), other).residual
    torch.testing.assert_close(noisy, exact, rtol=0.1, atol=0.02)


def test_each_client_is_judged_for_itself(monkeypatch):
    client = gl.Client(network(), gl.GaussianNoise(0.01))
    view, x = client.release(X, Y, key=range(5, 25)), X.clone()
    x[::2] = x[::2].flip(-1)
    whole = gl.fit(view, x)
    monkeypatch.setattr(gl.attacks.predictive, "ENTRIES", 3 * view.g.size)
    order = [4, 1, 0, 9]
    for told, rows in ((gl.fit(view, x), slice(None)), (gl.fit(view[order], x[order]), order)):
        torch.testing.assert_close(told.residual, whole.residual[rows], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(told.deviations, whole.deviations[rows], rtol=1e-3, atol=1e-2)


DESCRIPTIONS = {
    "mask": (gl.RandomMask(0.5, gl.GaussianNoise(0.01)), True),
    "hidden mask": (gl.UnknownMask(0.5, gl.GaussianNoise(0.01)), True),
    "learned noise": (gl.LearnedNoise((0.01, 0.02, 0.03, 0.04)), True),
    "pruning": (gl.MagnitudePruning(0.5), False),
    "Soteria": (gl.Soteria("dense2", 0.5), False),
    "part": (gl.Ignore("dense1", gl.NoDefense()), False),
    "noisy part": (gl.Ignore("dense1", gl.GaussianNoise(0.01)), True),
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_every_client_that_sends_can_be_judged(name):
    """Its own release at the private image is explained, that of another class's is not."""
    defense, density = DESCRIPTIONS[name]
    client = gl.Client(network(), defense)
    view = client.release(X, Y)
    told = gl.fit(view, X)
    assert told.explained.all()
    assert (told.deviations is not None) == density
    wrong = gl.fit(replace(view, y=(Y + 1) % 10), X)
    assert not wrong.explained.any()


def test_what_no_client_sends_is_not_judged():
    client = gl.Client(network())
    view = client.release(X, Y)
    for belief in (gl.Direction(), gl.Survivors("dense1", gl.GaussianNoise(1.0))):
        told = gl.fit(replace(view, client=replace(client, defense=belief)), X)
        assert told.explained is told.residual is told.deviations is None


def test_bad_questions_are_refused():
    view = gl.Client(network()).release(X, Y)
    with pytest.raises(ValueError, match="what the network sees of each client"):
        gl.fit(view, X[:3])
    with pytest.raises(ValueError, match="labels"):
        gl.fit(view.without_labels(), X)
    assert not gl.fit(view, X * torch.nan).explained.any()


@pytest.mark.parametrize("x", [None, "a", object(), [["a"]], X.to("meta"), X.bool()])
def test_what_is_no_answer_is_refused(x):
    with pytest.raises(ValueError, match="x is "):
        gl.fit(gl.Client(network()).release(X, Y), x)


def test_what_is_no_view_or_an_empty_one_is_refused():
    view = gl.Client(network()).release(X, Y)
    with pytest.raises(ValueError, match="nothing to attack"):
        gl.fit(view[[]], X[:0])
    for bad in (None, view.g, X):
        with pytest.raises(ValueError, match="view must be a ServerView"):
            gl.fit(bad, X)
    assert torch.equal(gl.fit(view, X.numpy()).residual, gl.fit(view, X).residual)
