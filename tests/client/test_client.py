import copy
import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

import gradleak as gl


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


X, Y = digits(4)


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
