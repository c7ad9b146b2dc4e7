"""Calls that ended badly in a second hostile reading; each stands for its kind."""

import copy
import gc
import json
import re
import sqlite3
import weakref
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gradleak as gl
from gradleak import attacks, experiment, metrics
from gradleak.attacks.adversary import attack_all

DATA = gl.data.load("digits", "train").take(range(12))
X, Y = DATA.x[:2], DATA.y[:2]
FEW = gl.Adam(steps=2)

pytestmark = pytest.mark.filterwarnings("ignore::gradleak.gradients.LoopWarning")


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def true(model, loss=F.cross_entropy):
    found = torch.autograd.grad(loss(model(X[:1]), Y[:1]), list(model.parameters()))
    return [g.clone() for g in found]


def check(model, loss=F.cross_entropy):
    """A release is autograd's own gradient."""
    released = gl.Client(model, loss=loss).release(X, Y).g
    for g, expected in zip(released.values(), true(model, loss), strict=True):
        torch.testing.assert_close(g[0], expected, rtol=1e-4, atol=1e-6)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.normed = nn.Linear(64, 64), nn.Linear(64, 64), False

    def forward(self, x):
        z = self.b(self.a(x.flatten(1)).tanh())
        return F.linear(z, self.a.weight) if self.normed else z


def hooked(model):
    model.a.register_forward_hook(lambda layer, given, z: 2 * z)


def tied(model):
    model.b.weight = model.a.weight


def patched(model):
    plain = model.a.forward
    model.a.forward = lambda x: 3 * plain(x)


def flagged(model):
    model.normed = True


def replaced(model):
    model.a = nn.Sequential(nn.Linear(64, 64), nn.Tanh())


@pytest.mark.parametrize("change", [hooked, tied, patched, flagged, replaced])
def test_a_forward_that_changes_after_a_release_is_looked_at_again(change):
    torch.manual_seed(0)
    model = Two()
    check(model)
    change(model)
    check(model)


def test_dropout_that_is_turned_on_later_is_found():
    class Dropping(Two):
        def forward(self, x):
            return F.dropout(super().forward(x), training=self.normed)

    model = Dropping()
    check(model)
    model.normed = True
    with pytest.raises(ValueError, match="random even in eval mode"):
        gl.Client(model).release(X, Y)


def test_a_loss_may_use_the_models_own_weights():
    model = net()
    check(model, lambda z, y: F.cross_entropy(z, y) + 0.05 * model[1].weight.square().sum())


def test_state_outside_of_buffers_is_left_as_it_was():
    class Remembering(nn.Module):
        def __init__(self):
            super().__init__()
            self.read, self.out, self.h = nn.Linear(64, 16), nn.Linear(16, 10), None

        def forward(self, x):
            h = self.read(x.flatten(1)).tanh() + (0 if self.h is None else self.h)
            self.h = h.detach().mean(0)
            return self.out(h)

    model = Remembering()
    expected = true(model)
    model.h = None
    client = gl.Client(model)
    for _ in range(2):
        view = client.release(X, Y)
        torch.testing.assert_close(view.g["read.weight"][0], expected[0])
        gl.inverting_gradients(client, optimizer=FEW).attack(view)
        client.view(dict(view.g), Y, shape=(1, 8, 8))
        assert model.h is None


def test_features_that_are_kept_may_be_copied_after():
    class Keeping(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 10)

        def forward(self, x):
            self.features = self.layer(x.flatten(1))
            return self.features

    model = Keeping()
    gl.Client(model).release(X, Y)
    copy.deepcopy(model)
    gl.Amortised(gl.Client(model), DATA, 0.01, 0.1)


class WithLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x):
        return self.net(x)

    def loss(self, z, y):
        return F.cross_entropy(z, y)


@pytest.mark.parametrize("loss", ["method", "lambda"])
def test_a_network_that_its_loss_holds_is_freed(loss):
    model = WithLoss()
    there = weakref.ref(model)
    client = gl.Client(
        model, loss=model.loss if loss == "method" else lambda z, y, m=model: m.loss(z, y)
    )
    client.release(X, Y)
    del model, client
    gc.collect()
    assert there() is None


def test_losses_that_cannot_be_hashed():
    @dataclass
    class Warm:
        heat: float = 2.0

        def __call__(self, z, y):
            return F.cross_entropy(z / self.heat, y)

    check(net(), Warm())


@pytest.mark.parametrize("factor", [1e-4, 1e-7, 1e-10, 1e-12])
def test_the_cosine_of_small_gradients(factor):
    client = gl.Client(net(), loss=lambda z, y: factor * F.cross_entropy(z, y))
    view = client.release(X, Y)
    for belief, most in ((gl.Direction(), 1), (gl.LayerDirections(), 2)):
        found = replace(client, defense=belief).log_prob(view.g, X, Y)
        torch.testing.assert_close(found, torch.full((2,), float(most)))


def test_the_cosine_of_ordinary_ones_is_what_it_was_to_the_bit():
    torch.manual_seed(0)
    a, b = (gl.Gradient({"w": torch.randn(5, 40) * 10.0 ** torch.arange(-3, 2)[:, None]})
            for _ in range(2))  # fmt: skip
    inner, norm = a.moments(b)
    expected = inner / (norm * b.sq_norm()).sqrt()
    assert gl.Direction()(a).log_prob(b).equal(expected)


class Scaled(nn.Module):
    def __init__(self, std, order=None):
        super().__init__()
        self.std, self.order, self.net = std, order, net()

    def forward(self, x):
        x = x if self.order is None else x.flatten(1)[:, self.order]
        return self.net((x - 0.5) / self.std)


@pytest.mark.parametrize("other", [Scaled(0.25), Scaled(0.5, torch.arange(63, -1, -1))])
def test_another_network_of_the_same_weights_is_told_where_grey_images_are_alike(other):
    own = Scaled(0.5)
    other.load_state_dict(own.state_dict())
    view = gl.Client(own).release(X, Y)
    with pytest.raises(ValueError, match="what comes out of the same weights differs"):
        gl.inverting_gradients(gl.Client(other), optimizer=FEW).attack(view)


def test_outputs_that_hold_no_tensors_in_parts():
    @dataclass
    class Output:
        logits: torch.Tensor
        steps: int = 3
        name: str = "text"

    class Told(nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.net, self.kind = net(), kind

        def forward(self, x):
            return self.kind(logits=self.net(x), steps=3)

    for kind in (dict, Output):
        model = Told(kind)

        def loss(z, y, kind=kind):
            return F.cross_entropy(z["logits"] if kind is dict else z.logits, y)

        view = gl.Client(model, loss=loss).release(X, Y)
        again = gl.Client(copy.deepcopy(model), loss=loss)
        assert gl.inverting_gradients(again, optimizer=FEW).attack(view).x.isfinite().all()


class Square:
    """A density as anybody writes it."""

    def __init__(self, g):
        self.g = g

    def sample(self, keys):
        return self.g

    def log_prob(self, seen):
        return -sum((seen[k] - self.g[k]).square().flatten(1).sum(1) for k in seen)


def test_own_densities_are_asked_with_a_row_for_each_restart():
    client = gl.Client(net(), lambda g: Square(g))
    view = client.release(X, Y)
    found = gl.bayes(client, gl.Flat(), optimizer=FEW, restarts=3).attack(view)
    assert found.restarts.shape == (2, 3)


def test_a_belief_that_writes_into_the_view_is_refused():
    class Clipping(Square):
        def log_prob(self, seen):
            seen["1.bias"].clamp_(-0.05, 0.05)
            return super().log_prob(seen)

    client = gl.Client(net(), lambda g: Clipping(g))
    with pytest.raises(ValueError, match="in place"):
        gl.bayes(client, gl.Flat(), optimizer=FEW).attack(gl.Client(client.model).release(X, Y))


def unit(t):
    return t / t.flatten(1).norm(dim=1).view(-1, *[1] * (t.ndim - 1))


@pytest.mark.parametrize("change", [unit, torch.sign])
def test_ratios_that_a_defense_changed_are_no_images(change):
    view = gl.Client(net(), lambda g: gl.PointMass(g.map(change))).release(X, Y)
    with pytest.raises(ValueError, match="ratio is not the image"):
        attacks.FirstLayer().attack(view)


def test_ratios_that_it_left_alone_are():
    view = gl.Client(net(), lambda g: gl.PointMass(g.map(lambda v: 0.1 * v))).release(X, Y)
    torch.testing.assert_close(attacks.FirstLayer().attack(view).x, X, rtol=0, atol=1e-4)


def test_labels_of_entries_in_another_order_are_refused():
    turned = gl.Client(net(), lambda g: gl.PointMass(g.map(lambda v: v.flip(-1))))
    with pytest.raises(ValueError, match="turns signs"):
        attacks.labels(turned.release(X, Y))


M = net()
CLIENT = gl.Client(M)
VIEW = CLIENT.release(X, Y)
NOISY = gl.Client(M, gl.GaussianNoise(0.05))
ADVERSARY = gl.dlg(CLIENT, optimizer=FEW)
PART = gl.Ignore("1.bias", gl.GaussianNoise(1.0))
UNROLLED = {"stages": 1, "steps": 1, "width": 4}
REFUSED = {
    "rows": (lambda: CLIENT.gradient(X, torch.cat([Y, Y])), "one row of each"),
    "no rows": (lambda: CLIENT.gradient(X[:0], Y[:0]), "at least one"),
    "g rows": (
        lambda: NOISY.log_prob(CLIENT.release(DATA.x[:3], DATA.y[:3]).g, X, Y),
        "3 gradients for 2 clients",
    ),
    "g of another": (
        lambda: NOISY.log_prob(gl.Gradient({"1.weight": torch.rand(2, 3)}), X, Y), "'1.weight'"
    ),
    "meta": (lambda: gl.Client(net().to("meta")).release(X, Y), "on meta"),
    "views of unlike parameters": (
        lambda: attack_all([
            (gl.bayes(gl.Client(M, PART), gl.Flat(), optimizer=FEW), view)
            for view in (VIEW, replace(VIEW, g=VIEW.g.without(["1.bias"])))
        ]),
        "other parameters each",
    ),
    "no pairs": (lambda: attack_all((ADVERSARY, VIEW)), "pairs"),
    "a class of a ball": (lambda: gl.dlg(CLIENT, ball=gl.Ball), "an instance"),
    "latents of images": (
        lambda: gl.dlg(CLIENT, ball=attacks.FreshLatents(2, 3), optimizer=FEW).attack(VIEW),
        "latents are the last 3",
    ),
    "no images": (lambda: gl.Amortised(CLIENT, DATA.take([]), 0.1, 0.2), "at least two"),
    "no family": (lambda: gl.Unrolled(CLIENT, None, DATA, 0.1, 0.2, **UNROLLED), "family"),
    "a diverged one": (
        lambda: gl.Unrolled(
            CLIENT, gl.GaussianNoise, DATA, 0.05, 0.1, lr=1e18, **(UNROLLED | {"steps": 3})
        ).attack(NOISY.release(X, Y)),
        "smaller lr",
    ),
    "g is a dict": (lambda: ADVERSARY.attack(replace(VIEW, g=dict(VIEW.g))), "g must be"),
    "no shape": (lambda: ADVERSARY.attack(replace(VIEW, shape=None)), "shape must be"),
    "no client": (lambda: ADVERSARY.attack(replace(VIEW, client=None)), "client"),
    "masked": (lambda: gl.interval(np.ma.masked_greater([1.0, 2.0, 300.0], 50)), "compressed"),
    "lists": (lambda: metrics.scores(X.tolist(), X.tolist()), "x_hat must be"),
    "vectors": (lambda: metrics.nearest(torch.rand(3), torch.rand(3)), "x and among"),
    "no metric": (lambda: metrics.floors(X, X, None), "metric"),
    "one number": (
        lambda: gl.data.Images("a", "train", torch.tensor(1.0), Y, (0,), 10), r"\(N, \.\.\.\)"
    ),
    "chances": (lambda: attacks.FinitePrior(X, Y, "a"), "p must be"),
    "no trial": (lambda: experiment.tune(None, [{}], [{}], DATA, None), "trial"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_named(name):
    call, told = REFUSED[name]
    with pytest.raises(ValueError, match=told):
        call()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE asked SET told = NULL",
        "UPDATE rows SET found = '" + "[" * 100_000 + "'",
        "UPDATE rows SET found = NULL",
    ],
)
def test_cells_of_another_kind_are_a_damaged_database(tmp_path, change):
    records = experiment.Records(tmp_path, "some")
    experiment.measured([({"a": 1}, (), lambda: {"b": 2.0})], records)
    assert json.loads(json.dumps(records.read()["b"].tolist())) == [2.0]
    with sqlite3.connect(tmp_path / "records.sqlite") as db:
        db.execute(change)
    db.close()
    with pytest.raises(gl.files.DamagedError, match=re.escape("records.sqlite")):
        records.read()
