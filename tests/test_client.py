import copy
import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
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


def test_a_frozen_model_is_refused(model):
    with pytest.raises(ValueError, match="no trainable parameters"):
        gl.Client(model.requires_grad_(False))


def test_noise_depends_on_the_seed(model):
    x, y = digits(2)
    client = gl.Client(model, gl.GaussianNoise(1.0))
    clean = gl.Client(model).release(x, y).g
    one, other, again = (client.release(x, y, seed=seed).g for seed in (0, 1, 0))
    a, b = (torch.cat([(g[k] - clean[k]).flatten() for k in g]) for g in (one, other))
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 / len(a) ** 0.5
    assert all(torch.equal(one[k], again[k]) for k in one)


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(1), nn.Dropout()])
def test_train_mode_is_found_when_the_client_is_used(layer):
    own = nn.Sequential(layer, nn.Flatten(), nn.Linear(64, 10)).eval()
    client = gl.Client(own)
    view = client.release(*digits())
    attacks = [gl.inverting_gradients(client), gl.attacks.FirstLayer()]
    own.train()
    for use in (lambda: client.release(*digits()), *(lambda a=a: a.attack(view) for a in attacks)):
        with pytest.raises(ValueError, match=r"is in train mode.*call model.eval\(\)"):
            use()


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
    ("changes", "match"),
    [
        ({"model": "mlp"}, "model must be a Module"),
        ({"model": nn.Linear}, "model must be a Module"),
        ({"loss": nn.CrossEntropyLoss}, "loss must be .*give an instance"),
        ({"loss": None}, "loss must be"),
        ({"defense": "gaussian"}, "defense must be"),
        ({"defense": gl.NoDefense}, "defense must be .*give an instance"),
        ({"defense": None}, "defense must be"),
        ({"transform": "15"}, "transform must be"),
    ],
)
def test_clients_of_what_is_none_are_refused(changes, match):
    with pytest.raises(ValueError, match=match):
        gl.Client(**{"model": nn.Linear(2, 3)} | changes)


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


SHAPE = (1, 8, 8)


def autograd(model, x, y):
    """What a script of one's own has after `backward`."""
    values = torch.autograd.grad(F.cross_entropy(model(x), y), [*model.parameters()])
    return dict(zip(dict(model.named_parameters()), values, strict=True))


def test_a_gradient_from_elsewhere_is_the_clients_own(model, tmp_path):
    x, y = digits(1)
    client = gl.Client(model)
    g, released = autograd(model, x, y), client.release(x, y, key=[4])
    save_file(g, tmp_path / "g.safetensors")
    np.savez(tmp_path / "g.npz", *(v.numpy() for v in g.values()))
    forms = (g, list(g.values()), {f"module.{k}": v.numpy() for k, v in g.items()},
             tmp_path / "g.safetensors", str(tmp_path / "g.npz"), released.g)  # fmt: skip
    for form in forms:
        view = client.view(form, int(y), shape=SHAPE, key=[4])
        assert (view.key, view.shape, view.client) == (released.key, released.shape, client)
        assert torch.equal(view.y, released.y)
        for name, value in released.g.items():
            torch.testing.assert_close(view.g[name], value, rtol=1e-4, atol=1e-6)
    assert client.view(g, shape=SHAPE).y is None


def test_a_view_from_elsewhere_is_attacked_as_any(model):
    x, y = digits(2)
    client = gl.Client(model, gl.GaussianNoise(0.01))
    released = client.release(x, y)
    seen = client.view(dict(released.g), y.tolist(), shape=list(SHAPE))
    attack = gl.bayes(client, gl.Box(), optimizer=gl.Adam(steps=3))
    assert torch.equal(attack.attack(seen).x, attack.attack(released).x)


def test_batches_from_elsewhere(model):
    x, y = digits(4)
    client = gl.Client(model, batch_size=4)
    released = client.release(x[None], y[None])
    for labels in (y, y[None], y.tolist()):
        view = client.view(autograd(model, x, y), labels, shape=SHAPE)
        assert view.shape == released.shape == (4, *SHAPE)
        assert torch.equal(view.y, released.y)
        torch.testing.assert_close(view.g["conv1.bias"], released.g["conv1.bias"])


@pytest.mark.parametrize("form", ["as it is", "with buffers", "module."])
def test_an_update_of_one_step_is_a_gradient(model, form):
    x, y = digits(1)
    client, after = gl.Client(model), copy.deepcopy(model)
    F.cross_entropy(after(x), y).backward()
    torch.optim.SGD(after.parameters(), lr=0.1).step()
    before, after = model.state_dict(), after.state_dict()
    if form == "module.":
        before, after = ({f"module.{k}": v for k, v in w.items()} for w in (before, after))
    view = client.view_of_update(before, after, 0.1, y, shape=SHAPE)
    for name, value in autograd(model, x, y).items():
        torch.testing.assert_close(view.g[name][0], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("steps", [0, 2, 5, -1, 1.5, "1", True, None, torch.ones(2)])
def test_more_local_steps_are_no_gradient(model, steps):
    state = model.state_dict()
    with pytest.raises(ValueError, match="several local steps is no gradient"):
        gl.Client(model).view_of_update(state, state, 0.1, 1, shape=SHAPE, steps=steps)


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        (dict(shape=(8, 8, 1)), "does not take examples of shape"),
        (dict(shape=(1, 1, 8, 8)), "without an axis of clients"),
        (dict(shape=(1, 16, 16)), "does not take examples"),
        (dict(shape=64), "does not take examples"),
        (dict(shape="abc"), "does not take examples"),
        (dict(shape=None), "does not take examples"),
        (dict(y=10), "out of bounds"),
        (dict(y=-1), "do not take x"),
        (dict(y=[1, 2]), "labels of 1 clients"),
        (dict(y="cat"), "labels are numbers"),
        (dict(y=0.5), "do not take x"),
        (dict(key=[1, 2]), "2 keys"),
        (dict(key=[-1]), "whole numbers, at least 0"),
        (dict(key=[1.5]), "whole numbers, at least 0"),
        (dict(key=["a"]), "whole numbers, at least 0"),
        (dict(key=3), "key must be a Sequence"),
        (dict(key=np.array(3)), "key must be 1 numbers"),
        (dict(key=torch.tensor(3)), "key must be 1 numbers"),
        (dict(key=torch.ones(1, 1)), "key must be 1 numbers"),
        (dict(y=np.ma.masked_array([3], [True])), "labels are numbers.*mask"),
        (dict(y=torch.tensor([3], device="meta")), "labels are numbers"),
        (dict(y=-100), "is not a number"),
    ],
)
def test_views_that_do_not_fit_are_refused(model, options, cure):
    g = autograd(model, *digits(1))
    with pytest.raises(ValueError, match=cure):
        gl.Client(model).view(g, **{"y": 0, "shape": SHAPE, **options})


def test_labels_of_every_client_are_looked_at(model):
    g = gl.Client(model).release(*digits(3)).g
    with pytest.raises(ValueError, match="out of bounds"):
        gl.Client(model).view(g, [0, 1, 12], shape=SHAPE)


@pytest.mark.parametrize("layer", ["conv1", ("conv2.weight", "dense1"), ("dense2",)])
def test_layers_that_were_not_sent(model, layer):
    """Refused, and attacked by who believes so: as who has them all and ignores them."""
    x, y = digits(2)
    whole = gl.Client(model).release(x, y)
    names = (layer,) if isinstance(layer, str) else layer
    part = {k: v for k, v in whole.g.items() if k not in names and k.split(".")[0] not in names}
    with pytest.raises(ValueError, match=r"lacks .*gradleak.Ignore\(\("):
        gl.Client(model).view(part, y, shape=SHAPE)
    client = gl.Client(model, gl.Ignore(layer, gl.NoDefense()))
    view = client.view(part, y, shape=SHAPE)
    assert list(view.g) == list(part) == list(client.release(x, y).g)
    belief = gl.Ignore(layer, gl.GaussianNoise(0.1))
    attack = gl.bayes(dataclasses.replace(client, defense=belief), gl.Box(), optimizer=STEPS)
    torch.testing.assert_close(attack.attack(view).x, attack.attack(whole).x)
    for hopeful in (gl.dlg(client), gl.inverting_gradients(client), gl.l1(client)):
        with pytest.raises(ValueError, match=r"view lacks .*believe.*gradleak.Ignore\(\("):
            hopeful.attack(view)


STEPS = gl.Adam(steps=5)


def test_layers_that_were_not_sent_of_a_noisy_client(model):
    """Two nested beliefs, and noise: one object for both sides."""
    x, y = digits(2)
    defense = gl.Ignore("conv1", gl.Ignore("dense1.bias", gl.GaussianNoise(0.1)))
    client = gl.Client(model, defense)
    view = client.release(x, y)
    assert list(view.g) == ["conv2.weight", "conv2.bias", "dense1.weight", "dense2.weight",
                            "dense2.bias"]  # fmt: skip
    again = client.view(dict(view.g), y, shape=SHAPE)
    attack = gl.bayes(client, gl.Box(), optimizer=STEPS)
    assert torch.equal(attack.attack(again).x, attack.attack(view).x)
    left = {k: v for k, v in view.g.items() if k != "conv2.bias"}
    with pytest.raises(ValueError, match=r"lacks conv2.bias;"):
        client.view(left, y, shape=SHAPE)


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


def poison(model):
    with torch.no_grad():
        list(model.parameters())[-1][0] = torch.nan


def poison_statistics(model):
    model[0].running_mean[0] = torch.inf


@pytest.mark.parametrize(
    ("change", "cure"),
    [
        (poison, "not finite.*load the weights"),
        (poison_statistics, "'0.running_mean' of the model is not finite"),
        (lambda net: net.train(), r"train mode.*model.eval\(\)"),
        (lambda net: net.requires_grad_(False), "no trainable parameters"),
        (lambda net: net[2].weight.register_hook(print), "has a hook"),
    ],
)
def test_views_of_models_that_are_unfit_are_refused(change, cure):
    net = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 10)).eval()
    client, g = gl.Client(net), autograd(net, *digits(1))
    client.view(g, 0, shape=SHAPE)
    state = {k: v.clone() for k, v in net.state_dict().items()}
    change(net)
    with pytest.raises(ValueError, match=cure):
        client.view(g, 0, shape=SHAPE)
    with pytest.raises(ValueError, match=cure):
        client.view_of_update(state, state, 0.1, 0, shape=SHAPE)


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


MODES = {
    "inference": torch.inference_mode,
    "no gradients": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


def everything(client, x, y, g):
    """Numbers of a release, a view, two attacks, a fit and the gradients themselves."""
    view = client.release(x, y)[[0]]
    climbed = gl.inverting_gradients(client, optimizer=gl.Adam(steps=3)).attack(view).x
    believed = gl.Client(client.model, gl.GaussianNoise(0.1))
    return [
        *view.g.values(),
        *gl.inverting_gradients(client, optimizer=gl.Adam(steps=1))
        .attack(client.view(g, y, shape=x.shape[1:]))
        .x,
        climbed,
        gl.attacks.FirstLayer().attack(view).x,
        gl.attacks.labels(view),
        gl.fit(view, x).residual,
        *gl.gradient(client.model, x[:, None], y[:, None]).values(),
        believed.slope(view.g, 0.5 * x, y),
    ]


@pytest.mark.parametrize("made", ["inside", "outside"])
@pytest.mark.parametrize("mode", MODES)
def test_what_is_found_does_not_depend_on_the_callers_mode(mode, made):
    model = gl.models.mlp(SHAPE, 10, (16,))
    x, y = digits(1)
    g = autograd(model, x, y)
    expected = everything(gl.Client(model), x, y, g)
    other = copy.deepcopy(model)  # of which nothing was found out yet
    with MODES[mode]():
        if made == "inside":
            x, y, g = x.clone(), y.clone(), {k: v.clone() for k, v in g.items()}
        found = everything(gl.Client(other), x, y, g)
    after = everything(gl.Client(other), x, y, g)
    for a, b, c in zip(found, expected, after, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(c, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bad", [None, 3, "a", [[0.5]], np.ones((1, 1, 8, 8))])
def test_gradients_and_densities_take_tensors(model, bad):
    x, y = digits(1)
    client = gl.Client(model, gl.GaussianNoise(0.1))
    law = client.distribution(x, y)
    g = law.sample([(0, 0)])
    calls = {
        "x must be a Tensor": [lambda: client.gradient(bad, y), lambda: client.log_prob(g, bad, y),
                               lambda: gl.gradient(model, bad, y)],
        "y must be a Tensor": [lambda: client.gradient(x, bad), lambda: client.log_prob(g, x, bad),
                               lambda: gl.gradient(model, x, bad)],
        "model must be a Module": [lambda: gl.gradient(bad, x, y)],
        "g must be a Gradient": [lambda: client.log_prob(bad, x, y), lambda: law.log_prob(bad),
                                 lambda: gl.Laplace(g, 0.1).log_prob(bad)],
        "entries must be": [lambda: gl.Gradient(bad), lambda: gl.Gradient({"w": bad})],
        "keys must be|random keys|must be whole": [lambda: law.sample(bad),
                                                   lambda: law.sample([bad])],
    }  # fmt: skip
    for match, some in calls.items():
        for call in some:
            with pytest.raises(ValueError, match=match):
                call()
