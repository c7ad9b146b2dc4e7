import dataclasses

import pytest
import torch
from torch import nn

import gradleak as gl


@pytest.fixture
def model():
    return gl.models.cnn((1, 8, 8), classes=10)


def digits(n=3):
    return gl.data.batch("digits", range(n))


def test_release_is_the_gradient_plus_the_clients_own_noise(model):
    x, y = digits()
    clean = gl.Client(model).release(x, y).g
    noisy = gl.Client(model, gl.GaussianNoise(0.5)).release(x, y, seed=4, key=[7, 8, 9]).g
    again = gl.Client(model, gl.GaussianNoise(0.5)).release(x[1:2], y[1:2], seed=4, key=[8]).g
    for name, value in noisy.items():
        torch.testing.assert_close(value[1:2], again[name], rtol=1e-5, atol=1e-6)
    noise = torch.cat([(noisy[k] - clean[k]).flatten() for k in clean])
    assert noise.std().item() == pytest.approx(0.5, rel=0.01)


def test_a_batch_releases_the_mean_of_its_gradients(model):
    x, y = digits(4)
    single = gl.Client(model).release(x, y).g
    batch = gl.Client(model, batch_size=2).release(x.reshape(2, 2, 1, 8, 8), y.reshape(2, 2)).g
    for name, value in batch.items():
        mean = single[name].reshape(2, 2, *value.shape[1:]).mean(1)
        torch.testing.assert_close(value, mean, rtol=1e-5, atol=1e-7)


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
    with pytest.raises(ValueError, match="3 inputs, 2 labels"):
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


def test_a_frozen_model_is_refused(model):
    with pytest.raises(ValueError, match="no trainable parameters"):
        gl.Client(model.requires_grad_(False))


@pytest.mark.parametrize("batch", [0, -1, 2.0, True, "2", (2,)])
def test_a_batch_size_is_a_number_of_examples(model, batch):
    with pytest.raises(ValueError, match="batch_size is how many examples a client averages over"):
        gl.Client(model, batch_size=batch)


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
    with pytest.raises(ValueError, match=r"\(N, \*shape\).*y \(N\)|\(N, 2"):
        gl.Client(model, batch_size=batch).release(torch.rand(x), torch.zeros(y).long())


def test_arrays_are_taken_as_tensors_are(model):
    x, y = digits(2)
    expected = gl.Client(model).release(x, y).g
    for rows in ((x.numpy(), y.numpy()), (x.tolist(), y.tolist()), (x.double().numpy(), y)):
        found = gl.Client(model).release(*rows).g
        assert all(torch.equal(found[k], expected[k]) for k in expected)
    for rows in (("images", y), (x, ["a", "b"]), ([[1.0], [1.0, 2.0]], y), (None, y)):
        with pytest.raises(ValueError, match="tensors or arrays of numbers"):
            gl.Client(model).release(*rows)
    with pytest.raises(ValueError, match="2 inputs, 1 labels and 2 keys"):
        gl.Client(model).release(x, y[:1])


def test_a_defense_of_a_batch_sees_its_mean(model):
    """A clip of one's own clips the mean, as the docstring says, and not each example."""

    def clipped(gradient):
        size = gradient.sq_norm().sqrt()
        return gl.PointMass(
            gradient.map(lambda v: v * (0.1 / size).clamp(max=1).view(-1, *[1] * (v.ndim - 1)))
        )

    x, y = digits(4)
    mean = gl.gradient(model, x[None], y[None])
    g = gl.Client(model, clipped, batch_size=4).release(x[None], y[None]).g
    share = 0.1 / mean.sq_norm().sqrt().item()
    assert share < 1
    for name, value in mean.items():
        torch.testing.assert_close(g[name], share * value)
