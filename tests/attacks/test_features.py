"""Features in front of a linear layer: read off exactly, and the image that has them."""

import pytest
import torch
from torch import nn

import gradleak as gl
from gradleak.attacks import LBFGS, Features
from gradleak.attacks.features import features


@pytest.fixture(scope="module")
def digits():
    return gl.data.batch("digits", range(4))


@pytest.fixture(scope="module")
def client():
    return gl.Client(gl.models.convbig((1, 8, 8), 10))


def test_features_are_what_the_gradient_tells(client, digits):
    view = client.release(*digits)
    told = gl.attacks.layer_input(view.g, "dense1")
    own = features(client, "dense1", digits[0])
    torch.testing.assert_close(own, told.a, rtol=1e-4, atol=1e-5)
    assert not client.model.get_submodule("dense1")._forward_pre_hooks


def test_their_slope_is_autograds(client, digits):
    x = digits[0].clone().requires_grad_()
    held = []
    handle = client.model.get_submodule("dense1").register_forward_pre_hook(
        lambda _, args: held.append(args[0])
    )
    client.model(x)
    handle.remove()
    ours = torch.autograd.grad(features(client, "dense1", x).square().sum(), x)
    expected = torch.autograd.grad(held[0].square().sum(), x)
    torch.testing.assert_close(ours[0], expected[0])


def test_the_image_that_has_them_is_the_private_one(client, digits):
    """On an undefended client, and through Soteria, which hides another layer."""
    for defense in (gl.NoDefense(), gl.Soteria("dense2", 0.8)):
        held = gl.Client(client.model, defense)
        found = Features("dense1", gl.TotalVariation(1e-4)).attack(held.release(*digits))
        grey = torch.full_like(digits[0], 0.5)
        assert (gl.psnr(found.x, digits[0]) > gl.psnr(grey, digits[0]) + 6).all()


def test_they_serve_as_a_start(client, digits):
    view = gl.Client(client.model, gl.GaussianNoise(1e-4)).release(*digits)
    few = dict(optimizer=gl.Adam(steps=1, lr=1e-6))
    start = Features("dense1", gl.TotalVariation(1e-4))
    found = gl.bayes(view.client, gl.TotalVariation(1.0), start=start, **few).attack(view)
    torch.testing.assert_close(found.x, start.attack(view).x, rtol=0, atol=1e-5)
    several = gl.bayes(view.client, gl.TotalVariation(1.0), start=start, restarts=3, **few)
    assert (several.attack(view).restarts.argmax(1) == 0).all()


def test_clients_do_not_mix(client, digits):
    view = client.release(*digits)
    attack = Features("dense1", optimizer=LBFGS(steps=15))
    torch.testing.assert_close(attack.attack(view).x[[2]], attack.attack(view[[2]]).x)


def test_what_has_no_closed_form_is_refused_and_names_what_has(client, digits):
    view = client.release(*digits)
    with pytest.raises(ValueError, match=r"'conv1' is no linear layer .* dense1, dense2"):
        Features("conv1").attack(view)
    several = gl.Client(client.model, batch_size=2)
    x, y = (v.unflatten(0, (2, 2)) for v in digits)
    with pytest.raises(ValueError, match="one row tells a mixture"):
        Features("dense1").attack(several.release(x, y))


def test_a_layer_may_be_called_by_keyword(digits):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(64, 20), nn.Linear(20, 10)

        def forward(self, x):
            return self.b(input=self.a(x.flatten(1)).relu())

    client = gl.Client(Named())
    told = gl.attacks.layer_input(client.release(*digits).g, "b").a
    torch.testing.assert_close(features(client, "b", digits[0]), told, rtol=1e-4, atol=1e-5)


def test_a_layer_that_is_not_run_has_no_input(digits):
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(64, 10), nn.Linear(64, 10)

        def forward(self, x):
            return self.a(x.flatten(1))

    with pytest.raises(ValueError, match="does not run 'b'"):
        features(gl.Client(Idle()), "b", digits[0])
