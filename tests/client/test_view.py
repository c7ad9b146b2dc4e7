import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import gradleak as gl


def digits(n=3):
    return gl.data.batch("digits", range(n))


def test_the_view_holds_neither_x_nor_the_true_gradient(model):
    x, y = digits()
    client = gl.Client(model, gl.GaussianNoise(1.0))
    view = client.release(x, y)
    assert {f.name for f in dataclasses.fields(view)} == {"client", "g", "y", "shape", "key"}
    true_gradient = client.gradient(x, y)
    assert all((view.g[k] != true_gradient[k]).any() for k in true_gradient)
    assert all(not v.requires_grad for v in view.g.values())


def test_a_view_can_be_cut(model):
    x, y = digits()
    view = gl.Client(model).release(x, y, key=[5, 6, 7])
    part = view[[2, 0]]
    assert part.key == (7, 5)
    assert torch.equal(part.y, y[[2, 0]])
    assert all(torch.equal(part.g[k], view.g[k][[2, 0]]) for k in view.g)
    assert view[1:].key == (6, 7)
    assert view.without_labels().y is None


X, Y = digits(4)


def test_a_view_and_errors_say_how_many_clients_of_how_many_examples(model):
    assert repr(gl.Client(model).release(X, Y)).startswith("ServerView(4 clients of one example;")
    batch = gl.Client(model, batch_size=4).release(X[None], Y[None])
    assert repr(batch.without_labels()).startswith("ServerView(1 client of 4 examples; x (4, 1, 8")
    with pytest.raises(ValueError, match=r"batch_size=4, x\[None\].*4 clients of one example each"):
        gl.Client(model, batch_size=2).release(X, Y)
    with pytest.raises(ValueError, match=r"2 clients of 2 examples.*out of bounds"):
        gl.Client(model, batch_size=2).release(X.reshape(2, 2, 1, 8, 8), Y.reshape(2, 2) * 5)


@pytest.mark.parametrize(
    "index",
    [
        [torch.tensor([])],
        [[]],
        np.array(1),
        [1.7],
        [True, False, True, True],
        [4],
        [-5],
        2,
        "a",
        [None],
        [[0, 1]],
        [2**70],
    ],
)
def test_places_that_are_none_are_refused(model, index):
    with pytest.raises(ValueError, match="view"):
        gl.Client(model).release(X, Y)[index]


@pytest.mark.parametrize("attack", [gl.inverting_gradients, lambda _: gl.attacks.FirstLayer()])
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda v: dataclasses.replace(v, g=v.g.map(torch.zeros_like)),
            "client 0, 1, 2, 3 is zero",
        ),
        (lambda v: dataclasses.replace(v, g=v.g.map(lambda t: t / 0)), "is not finite"),
        (lambda v: dataclasses.replace(v, g=one_bad(v.g)), "client 2 is not finite"),
        (lambda v: v[:0], "nothing to attack"),
        (lambda v: v[[]], "nothing to attack"),
        (lambda v: dataclasses.replace(v, key=(0, 1)), "nothing to attack"),
        (lambda v: dataclasses.replace(v, y=v.y[:2]), r"y is \(2,\) for 4 clients"),
        (lambda v: dataclasses.replace(v, y=[0, 1, 2, 3]), "y must be a Tensor"),
        (lambda v: dataclasses.replace(v, y=v.y + 9), "do not take x .* from 9 to 12"),
        (lambda v: dataclasses.replace(v, y=v.y.double()), "do not take x .*float64"),
    ],
)
def test_views_that_tell_nothing_are_refused(attack, change, match):
    client = gl.Client(gl.models.mlp((1, 8, 8), 10, (8,)))
    view = change(client.release(X, Y))
    with pytest.raises(ValueError, match=match):
        attack(client).attack(view)


def one_bad(g):
    """A number of one client's last parameter is not finite."""
    last = list(g)[-1]
    entries = {k: v.clone() for k, v in g.items()}
    entries[last][2, -1] = torch.inf
    return gl.Gradient(entries)


SHAPE = (1, 8, 8)


STEPS = gl.Adam(steps=5)


def test_an_adversary_of_another_network_is_refused(model):
    x, y = digits(1)
    view = gl.Client(model, gl.GaussianNoise(0.1)).release(x, y)
    other = gl.Client(gl.models.cnn(SHAPE, classes=10, seed=1), gl.GaussianNoise(0.1))
    twin = gl.Client(copy.deepcopy(model), gl.GaussianNoise(0.1))
    finite = gl.attacks.FinitePrior(x, y)
    for make in (
        lambda client: gl.bayes(client, gl.Box(), optimizer=STEPS),
        lambda client: gl.inverting_gradients(client, optimizer=STEPS),
        lambda client: gl.attacks.ExactAnswer(client, finite, 0.0),
        lambda client: gl.prior_only(client, gl.Box(), optimizer=STEPS),
    ):
        with pytest.raises(ValueError, match=r"network is not .*'conv1.weight'.*view.client"):
            make(other).attack(view)
        make(twin).attack(view)  # the same by value


def test_an_adversary_of_another_batch_size_is_refused(model):
    view = gl.Client(model).release(*digits(2))
    with pytest.raises(ValueError, match="batch_size=2, those of the view have None"):
        gl.dlg(gl.Client(model, batch_size=2)).attack(view)


def test_other_beliefs_about_the_same_network_are_welcome(model):
    view = gl.Client(model, gl.GaussianNoise(0.1)).release(*digits(1))
    smoothed = nn.CrossEntropyLoss(label_smoothing=0.1)
    for belief in (
        gl.Client(model, gl.LaplaceNoise(1.0)),
        gl.Client(model, gl.Direction(), smoothed),
    ):
        gl.bayes(belief, gl.Box(), optimizer=STEPS).attack(view)


@pytest.mark.parametrize(
    ("change", "cure"),
    [
        (lambda m: m.double(), "not one of the model as it stands.*make the view anew"),
        (lambda m: m.requires_grad_(False), "no trainable parameters"),
        (lambda m: m.conv1.requires_grad_(False), "'conv1.weight' is not one of the model"),
        (lambda m: m.conv1.weight.register_hook(print), "has a hook"),
        (lambda m: m.add_module("drop", nn.Dropout().train()), "train mode"),
    ],
)
def test_a_model_that_changed_since_its_view_is_refused(model, change, cure):
    x, y = digits(1)
    client = gl.Client(model)
    view = client.release(x, y)
    short = gl.inverting_gradients(client, optimizer=gl.Adam(steps=1))
    change(model)
    for use in (short.attack, gl.attacks.FirstLayer().attack, lambda view: gl.fit(view, x)):
        with pytest.raises(ValueError, match=cure):
            use(view)
