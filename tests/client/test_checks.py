import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import gradleak as gl
from gradleak.client import checks


def digits(n=3):
    return gl.data.batch("digits", range(n))


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(1), nn.Dropout()])
def test_train_mode_is_refused(layer):
    with pytest.raises(ValueError, match=r"model.eval\(\)"):
        gl.Client(nn.Sequential(layer, nn.Flatten(), nn.Linear(64, 10)))
    gl.Client(nn.Sequential(layer, nn.Flatten(), nn.Linear(64, 10)).eval())


def test_images_outside_the_box_are_refused(model):
    x, y = digits()
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\]"):
        gl.Client(model).release(2 * x, y)


def test_inputs_that_are_no_images_may_lie_anywhere():
    client = gl.Client(nn.Linear(2, 3))
    client.release(torch.tensor([[-5.0, 7.0]]), torch.tensor([1]))


@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 3, 8, 8), (3, 1, 6, 6)])
def test_wrong_shapes_are_refused(model, shape):
    with pytest.raises(ValueError, match=r"do not take x|trainable"):
        gl.Client(model).release(torch.rand(shape), torch.zeros(3, dtype=torch.long))


def test_labels_must_fit(model):
    x, y = digits()
    with pytest.raises(ValueError, match="3 inputs and 2 labels"):
        gl.Client(model).release(x, y[:2])
    with pytest.raises(ValueError, match="do not take x"):
        gl.Client(model).release(x, torch.full((3,), 99))


def test_keys_must_differ(model):
    with pytest.raises(ValueError, match="share their noise"):
        gl.Client(model).release(*digits(2), key=[1, 1])


def test_batch_sizes_must_fit(model):
    with pytest.raises(ValueError, match="batch size is 2"):
        gl.Client(model, batch_size=2).release(*digits(3))


def test_dead_and_exploded_models_are_refused(model):
    dead = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 10, bias=False))
    nn.init.constant_(dead[1].bias, -100)
    with pytest.raises(ValueError, match="client 0, 1 is zero"):
        gl.Client(dead).release(*digits(2))
    with torch.no_grad():
        model.dense2.weight.mul_(float("inf"))
    with pytest.raises(ValueError, match="not finite"):
        gl.Client(model).release(*digits(1))


class Blind(nn.Module):
    """Classifies without looking at x."""

    def __init__(self, how):
        super().__init__()
        self.how, self.head = how, nn.Linear(64, 10)

    def forward(self, x):
        return self.head(self.how(x.flatten(1)))


@pytest.mark.parametrize("how", [torch.ones_like, torch.sign, lambda x: 0 * x + 0.5])
@pytest.mark.parametrize("count", [1, 3])
def test_a_network_that_ignores_x_is_refused(how, count):
    x, y = digits(count)
    with pytest.raises(ValueError, match=r"same whatever x is.*ignores x"):
        gl.Client(Blind(how)).release(0.9 * x + 0.05, y)


def test_a_dead_first_layer_is_refused_where_no_x_wakes_it():
    dead = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 10))
    nn.init.constant_(dead[1].bias, -100)
    with pytest.raises(ValueError, match="first layer is dead"):
        gl.Client(dead).release(*digits())
    x, y = digits()
    with torch.no_grad():  # one image does not reach the first unit, others may
        dead[1].weight.fill_(1.0)
        dead[1].bias.fill_(-x[0].sum().item() - 1e-3)
    gl.Client(dead).release(x, y)


def test_arrays_and_lists_are_taken_as_tensors_are(model):
    x, y = digits()
    read_only = x.double().numpy()
    read_only.flags.writeable = False
    expected = gl.Client(model).release(x, y).g
    unsigned, backwards = y.numpy().astype("uint16"), x.flip(0).numpy()[::-1]
    for a, b in (
        (x.numpy(), y.numpy()),
        (read_only, y.tolist()),
        (x.tolist(), y.int()),
        (backwards, y.byte()),
        (x.double(), unsigned),
    ):
        found = gl.Client(model).release(a, b).g
        assert all(torch.equal(found[k], expected[k]) for k in found)


X, Y = digits(4)


BAD = {
    "a scalar label": (X[:1], 3, "Of one example"),
    "one example": (X[0], Y[0], "Of one example"),
    "no client": (X[:0], Y[:0], "at least one client"),
    "examples without numbers": (X[:, :, :0], Y, "at least one client"),
    "labels that are words": (X, ["a"] * 4, "y is a list of which no tensor"),
    "no labels": (X, None, "y is a NoneType"),
    "no x": (None, Y, "x is a NoneType"),
    "a ragged list": ([[1.0], [1.0, 2.0]], Y[:2], "x is a list"),
    "bytes": ((255 * X).byte(), Y, "x / 255"),
    "whole numbers": (X.long().numpy(), Y, "x / 255"),
    "truths": (X > 0.5, Y, "x.float()"),
    "complex numbers": (X.cfloat(), Y, "view_as_real"),
    "complex labels": (X, Y.cfloat(), "view_as_real"),
    "a sparse tensor": (X.to_sparse(), Y, "to_dense"),
    "not a number": (torch.where(X > 0.5, torch.nan, X), Y, "not finite"),
    "infinite": (X / 0.0, Y, "not finite"),
    "negative": (-X, Y, "must lie in"),
    "labels as floats": (X, Y.float(), "do not take x .*float32.*y.long"),
    "label of the third alone": (X, torch.tensor([0, 1, 10, 2]), "do not take x .* from 0 to 10"),
    "label of the last alone": (X, torch.tensor([0, 1, 2, -1]), "do not take x .* from -1 to 2"),
    "a label that does not count": (X, torch.tensor([0, 1, 2, -100]), "label -100 is not a"),
    "a batch": (X[None], Y[None], "see batch_size"),
    "a masked array": (np.ma.masked_array(X.numpy(), X.numpy() > 0.5), Y, "mask; fill in"),
    "masked labels": (X, np.ma.masked_array(Y.numpy(), [True] * 4), "y is a Masked.*fill in"),
    "a meta tensor": (X.to("meta"), Y, "on meta; give a dense tensor"),
    "labels on meta": (X, Y.to("meta"), "y is .*on meta; give a dense tensor"),
    "8 bits": (X.to(torch.float8_e4m3fn), Y, "float8"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_data_are_refused_with_the_cure(name, model):
    x, y, cure = BAD[name]
    with pytest.raises(ValueError, match=cure):
        gl.Client(model).release(x, y)


BROKEN = st.one_of(
    st.integers(max_value=-1),
    st.floats(),
    st.text(),
    st.booleans(),
    st.none(),
    st.complex_numbers(),
)


@given(BROKEN)
def test_seeds_and_keys_are_whole_and_not_negative(bad):
    client = gl.Client(nn.Linear(2, 3))
    x, y = torch.rand(2, 2), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="seed must be whole"):
        client.release(x, y, seed=bad)
    with pytest.raises(ValueError, match="key must be whole"):
        client.release(x, y, key=[0, bad])
    view = client.release(x, y)
    with pytest.raises(ValueError, match="seed must be whole"):
        gl.inverting_gradients(client, gl.Flat()).attack(view, seed=bad)


@given(st.one_of(BROKEN.filter(lambda v: v is not None), st.just(0)))
def test_a_batch_size_is_whole_and_positive(bad):
    with pytest.raises(ValueError, match="batch_size must be a whole number"):
        gl.Client(nn.Linear(2, 3), batch_size=bad)


@pytest.mark.parametrize(
    ("x", "y", "batch"),
    [
        ((2, 1, 8, 8), (), None),
        ((0, 1, 8, 8), (0,), None),
        ((), (), None),
        ((2,), (2,), None),
        ((2, 2, 1, 8, 8), (2,), 2),
        ((0, 2, 1, 8, 8), (0, 2), 2),
        ((2, 2), (2, 2), 2),
    ],
)
def test_inputs_without_clients_examples_or_labels_are_refused(model, x, y, batch):
    with pytest.raises(ValueError, match=r"\(N, \*shape\)|\(N, 2"):
        gl.Client(model, batch_size=batch).release(torch.rand(x), torch.zeros(y).long())


@given(clients=st.integers(1, 4), batch=st.sampled_from([None, 1, 2, 3]), data=st.data())
def test_labels_in_any_form(clients, batch, data):
    axes = [clients] if batch is None else [clients, batch]
    expected = torch.randint(10, axes)
    forms = [
        expected,
        expected.numpy(),
        expected.tolist(),
        expected.int(),
        expected.numpy().astype("u1"),
    ]
    if clients == 1:
        forms += [expected[0], expected[0].numpy(), expected[0].tolist()]
    found = checks.labels(data.draw(st.sampled_from(forms)), clients, batch)
    assert found.dtype is torch.int64
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    "y", [[1, 2], 3, [[1, 2, 3]], "cat", ["a", "b", "c"], [None] * 3, {1: 2}, [], 1j]
)
def test_other_labels_are_refused(y):
    with pytest.raises(ValueError, match="labels"):
        checks.labels(y, 3, None)


def test_soft_labels_of_one_client_may_come_alone():
    soft = torch.rand(4)
    assert torch.equal(checks.labels(soft, 1, None), soft[None])
