"""A part of one's own that couples attacks, or does another thing than it should, is found out."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import gradleak as gl
from gradleak import look
from gradleak.attacks import answered, asked

X, Y = gl.data.batch("digits", [3, 4, 5])
MODEL = gl.models.mlp((1, 8, 8), 10, (12,))
STEPS = gl.Adam(steps=2)


@pytest.fixture(scope="module")
def view():
    return gl.Client(MODEL, gl.GaussianNoise(0.1)).release(X, Y)


def released(defense, **options):
    return gl.Client(MODEL, defense, **options).release(X, Y)


def climbed(view, defense=gl.GaussianNoise(0.1), prior=gl.Box()):
    return gl.bayes(gl.Client(MODEL, defense), prior, optimizer=STEPS).attack(view)


def mapped(f):
    """A defense that releases f of each parameter's gradient."""
    return lambda gradient: gl.PointMass(gradient.map(f))


@dataclass(frozen=True)
class Held:
    """A belief by its log-density of (gradient, g)."""

    f: object

    def __call__(self, gradient):
        return gl.defenses.Density(lambda g: self.f(gradient, g))


@dataclass(frozen=True, eq=False)
class Own(gl.Prior):
    """A prior by its log-density."""

    f: object = lambda x: -x.square().flatten(1).sum(1)
    moved: object = lambda x: x

    def log_prob(self, x):
        return self.f(x)

    def project(self, x):
        return self.moved(x)


class Changing:
    """Another answer at each call."""

    def __init__(self):
        self.calls = 0

    def __call__(self, gradient):
        self.calls += 1
        return gl.PointMass(gradient.map(lambda v: v * self.calls))


def in_place(gradient):
    for v in gradient.values():
        v.mul_(0.5)
    return gl.PointMass(gradient)


BAD_DEFENSES = {
    "a Gradient": (lambda g: g, "return gl.PointMass"),
    "nothing": (lambda g: None, "got NoneType"),
    "a dict": (dict, "got|give an instance"),
    "state": (Changing(), "asked twice"),
    "noise without a key": (mapped(lambda v: v + torch.randn_like(v)), "asked twice"),
    "in place": (in_place, "in place"),
    "fewer names": (
        lambda g: gl.PointMass(g.without(["dense1"])),
        "of the parameters dense1.weight",
    ),
    "flat": (mapped(lambda v: v.flatten(1)), "must stay"),
    "double": (mapped(torch.Tensor.double), "must stay"),
    "squeezed": (mapped(lambda v: v[0]), "row for each"),
    "0 / 0": (mapped(lambda v: v * torch.nan), "not finite"),
    "a norm over attacks": (mapped(lambda v: v / v.norm()), "couples attacks"),
    "a mean over attacks": (mapped(lambda v: v - v.mean(0)), "couples attacks"),
    "the last one": (mapped(lambda v: v[-1:].expand_as(v)), "couples attacks"),
    "for three only": (mapped(lambda v: v + torch.zeros(3, *v.shape[1:])), "any number must do"),
    "no such name": (lambda g: gl.PointMass(g.only("other")), "no parameter is named 'other'"),
}


@pytest.mark.parametrize("name", BAD_DEFENSES)
def test_defenses_are_found_out(name):
    defense, told = BAD_DEFENSES[name]
    with pytest.raises(ValueError, match=told):
        released(defense)


BAD_BELIEFS = {
    "a sum over attacks": (lambda f, g: -f.sq_distance(g).sum(), r"\(2,\), got \(\)"),
    "a column": (lambda f, g: -f.sq_distance(g)[:, None], r"got \(2, 1\)"),
    "a number": (lambda f, g: -1.0, "got float"),
    "the sum, for each": (lambda f, g: -f.sq_distance(g).sum().expand(g.attacks), "couples"),
    "a rank": (lambda f, g: -f.sq_distance(g).softmax(0), "couples|no slope"),
    "no slope": (lambda f, g: -f.sq_distance(g).detach(), "has no slope"),
    "whole numbers": (lambda f, g: -f.sq_distance(g).long(), "got"),
    "nan": (lambda f, g: f.sq_distance(g) * torch.nan, "not a number"),
    "an infinite slope": (
        lambda f, g: -(f.sq_norm() * 0).sqrt(),
        "slope of log_prob is not finite",
    ),
}


@pytest.mark.parametrize("name", BAD_BELIEFS)
def test_beliefs_are_found_out(name, view):
    f, told = BAD_BELIEFS[name]
    with pytest.raises(ValueError, match=told):
        climbed(view, Held(f))
    with pytest.raises(ValueError, match=told):  # also inside of one of ours
        climbed(view, gl.RandomMask(0.1, Held(f)))


BAD_PRIORS = {
    "scalar": (Own(lambda x: -x.square().sum()), r"\(2,\), got \(\)"),
    "mean over attacks": (Own(lambda x: -(x - x.mean(0)).square().flatten(1).sum(1)), "couples"),
    "no slope": (Own(lambda x: -x.detach().square().flatten(1).sum(1)), "has no slope"),
    "rounded": (Own(lambda x: -(9 * x).round().flatten(1).sum(1)), "has no slope"),
    "by NumPy": (Own(lambda x: torch.from_numpy(-x.detach().numpy().sum((1, 2, 3)))), "no slope"),
    "nan": (Own(lambda x: (x - 2).log().flatten(1).sum(1)), "not a number"),
    "flat projection": (Own(moved=lambda x: x.flatten(1)), "project must stay"),
    "one projection": (Own(moved=lambda x: x[0]), "row for each"),
    "nan projection": (Own(moved=lambda x: x / 0 * 0), "not finite"),
    "joint projection": (Own(moved=lambda x: x / x.max()), "couples"),
    "projection in place": (Own(moved=lambda x: x.clamp_(0.4, 0.6)), "in place"),
    "no projection": (Own(moved=lambda x: None), "got NoneType"),
    "denoiser": (gl.Learned(lambda x, sigma: x - x.mean(0), "a"), "couples"),
    "small denoiser": (gl.Learned(lambda x, sigma: x[..., :3], "a"), "any number must do"),
}


@pytest.mark.parametrize("name", BAD_PRIORS)
def test_priors_are_found_out(name, view):
    prior, told = BAD_PRIORS[name]
    with pytest.raises(ValueError, match=told):
        climbed(view, prior=prior)
    with pytest.raises(ValueError, match=f"{told}|couples"):
        climbed(view, prior=gl.Sum((gl.Flat(), prior)))


class Noise(gl.Transform):
    def __call__(self, x, keys):
        return x + 0.01 * torch.randn_like(x)


class Mixed(gl.Transform):
    def __call__(self, x, keys):
        return 0.5 * x + 0.5 * x.mean(0)


class Listed(gl.Transform):
    def __call__(self, x, keys):
        return list(x)


class Mirrored(gl.Transform):
    def __call__(self, x, keys):
        return x.flip(-1)


def test_transforms_and_losses_are_found_out():
    for transform, told in ((Noise(), "twice"), (Mixed(), "couples"), (Listed(), "got list")):
        with pytest.raises(ValueError, match=told):
            released(gl.NoDefense(), transform=transform)
    released(gl.NoDefense(), transform=Mirrored())
    for loss, told in (
        (nn.CrossEntropyLoss(reduction="none"), "a loss gives one number"),
        (lambda out, y: F.cross_entropy(out, y).item(), "a loss gives one number"),
        (lambda out, y: out, "a loss gives one number"),
        (lambda out, y: out.argmax(), "a scalar tensor of floats"),
    ):
        with pytest.raises(ValueError, match=told):
            released(gl.NoDefense(), loss=loss)


@dataclass(frozen=True)
class Answering(gl.Attack):
    f: object

    def attack(self, view, seed=0):
        return self.f(view)


def test_attacks_answer_in_one_form(view):
    grey = torch.full((3, 1, 8, 8), 0.5)
    for f, told in (
        (lambda view: grey, "must answer with a Reconstruction"),
        (lambda view: answered(grey[:1], 0.0), "x of one image a client"),
        (lambda view: answered(grey.flatten(1), 0.0), "x of one image a client"),
        (lambda view: answered(grey.long(), 0.0), "x must be a floating-point tensor"),
        (lambda view: answered(grey, 0.0, torch.zeros(1)), r"log_posterior \(3,\)"),
    ):
        with pytest.raises(ValueError, match=told):
            asked(Answering(f), view)

    good = answered(grey, 0.0)
    for changes in (
        {"x": grey.numpy()}, {"x": None}, {"x": [0.5]}, {"log_posterior": None},
        {"log_posterior": grey[:, 0, 0, 0].cfloat()}, {"log_posterior": np.zeros(3)},
        {"x": grey.to_sparse()}, {"x": grey.to("meta")}, {"restarts": grey[:, 0, 0].to_sparse()},
        {"restarts": None}, {"seconds": None}, {"seconds": "1"}, {"seconds": torch.ones(2)},
    ):  # fmt: skip
        (name,) = changes
        with pytest.raises(ValueError, match=name):
            asked(Answering(lambda view, c=changes: replace(good, **c)), view)

    class Random(Answering):
        pass

    draws = Random(lambda view: answered(torch.rand(len(view), 1, 8, 8), 0.0))
    with pytest.warns(UserWarning, match="alone than beside others"):
        asked(draws, view)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 10), st.integers(1, 3), st.sampled_from([0.0, 1.0]))
def test_good_parts_pass_and_are_looked_at_once(scale, rows, shift):
    calls = []

    def defense(gradient):
        calls.append(gradient.attacks)
        return gl.Normal(gradient.map(lambda v: v.clamp(-scale, scale)), scale)

    client, x = gl.Client(MODEL, defense), X[:rows]
    first = client.release(x, Y[:rows]).g
    assert calls == [2, 2, 1, 1, rows]
    again = client.release(x, Y[:rows]).g
    assert calls == [2, 2, 1, 1, rows, rows]
    assert all(torch.equal(first[k], again[k]) for k in first)
    prior = Own(lambda x: -scale * (x - shift).square().flatten(1).sum(1), lambda x: x.clamp(0, 1))
    climbed(client.release(x, Y[:rows]), defense, prior)
    climbed(client.release(x, Y[:rows]), defense, Own(lambda x: x.new_zeros(len(x))))


def test_known_parts_are_those_made_of_ours_alone():
    ours = [
        gl.NoDefense(), gl.RandomMask(0.5, gl.GaussianNoise(torch.ones(3))), gl.Flat(),
        gl.Sum((gl.Box(), gl.TotalVariation(1.0))), gl.Ignore("dense1", gl.Direction()),
    ]  # fmt: skip
    others = [
        mapped, Changing(), gl.Sum((gl.Box(), Own())), gl.Ignore("dense1", mapped), len,
        gl.Learned(nn.Identity(), "a"), Changing().__call__,
    ]  # fmt: skip
    assert all(map(look.known, ours))
    assert not any(map(look.known, others))


def test_what_dies_is_forgotten():
    part = Changing()
    look.done(part, "here")
    assert not look.due(part, "here")
    assert look.due(part, "there")
    key = (id(part), "here")
    del part
    assert key not in look._SEEN
