"""Half precision: released and scored in float32, and attacked as well as the same in float32."""

import copy

import pytest
import torch

import gradleak as gl
from gradleak.gradients import HALF, in_float32

X, Y = gl.data.batch("digits", range(3))
MODEL = gl.models.mlp((1, 8, 8), 10, widths=(16,))
every_half = pytest.mark.parametrize("dtype", HALF)


def half(dtype):
    return copy.deepcopy(MODEL).to(dtype)


def test_a_model_in_float32_is_itself_and_a_copy_follows_the_weights():
    assert in_float32(MODEL) is MODEL
    model = half(torch.float16)
    one = in_float32(model)
    assert one is in_float32(model)
    assert all(p.dtype == torch.float32 for p in one.parameters())
    with torch.no_grad():
        model.dense1.weight.mul_(2)
    assert in_float32(model) is not one
    assert torch.equal(in_float32(model).dense1.weight, model.dense1.weight.float())


@every_half
def test_the_client_releases_what_its_own_network_gives(dtype):
    model = half(dtype)
    g = gl.Client(model).release(X, Y).g
    for n in range(3):
        output = model(X[n : n + 1].to(dtype))
        own = torch.autograd.grad(torch.nn.functional.cross_entropy(output, Y[n : n + 1]),
                                  list(model.parameters()))  # fmt: skip
        for found, expected in zip(g.values(), own, strict=True):
            assert found.dtype == torch.float32
            scale = 4 * torch.finfo(dtype).eps * expected.abs().max().item()
            torch.testing.assert_close(found[n], expected.float(), rtol=0, atol=scale)


@every_half
@pytest.mark.parametrize("noise", [gl.GaussianNoise, gl.LaplaceNoise])
@pytest.mark.parametrize("scale", [0.1, 1e-3])  # the slopes of the second are beyond float16
def test_what_is_found_and_its_score_are_those_of_float32(dtype, noise, scale):
    model = half(dtype)
    client, plain = gl.Client(model, noise(scale)), gl.Client(in_float32(model), noise(scale))
    climb = gl.Adam(steps=60, signed=True, decay=0.95)
    view = client.release(X, Y)
    found = gl.bayes(client, gl.Box(), optimizer=climb).attack(view)
    same = gl.bayes(plain, gl.Box(), optimizer=climb).attack(view)
    assert found.x.dtype == torch.float32
    assert torch.equal(found.x, same.x)
    expected = plain.log_prob(view.g, found.x, Y)
    torch.testing.assert_close(found.log_posterior, expected, rtol=1e-4, atol=0.1)
    assert (gl.psnr(found.x, X) > 20).all()


@every_half
def test_densities_of_gradients_in_half_precision_are_taken_in_float32(dtype):
    """500 ** 2 * 100 is beyond float16, and bfloat16 counts to 256."""
    h, g = (gl.Gradient({"w": torch.full((2, 100), v, dtype=dtype)}) for v in (500.0, 250.0))
    torch.testing.assert_close(h.sq_norm(), torch.full((2,), 2.5e7))
    torch.testing.assert_close(h.sq_distance(g), torch.full((2,), 6.25e6))
    torch.testing.assert_close(h.abs_distance(g), torch.full((2,), 2.5e4))
    assert gl.GaussianNoise(0.1)(h).log_prob(g).isfinite().all()


class Weighted(torch.nn.Module):
    """A loss of one's own that holds half precision."""

    def __init__(self, weight):
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, output, y):
        return torch.nn.functional.cross_entropy(output, y, weight=self.weight)


@pytest.mark.parametrize("kind", [torch.nn.CrossEntropyLoss, Weighted])
def test_a_loss_in_half_precision_is_climbed_in_float32_too(kind):
    weight = torch.linspace(0.5, 2, 10).half()
    found = [
        gl.bayes(
            gl.Client(half(torch.float16), gl.GaussianNoise(0.1), loss=kind(w)),
            gl.Box(), optimizer=gl.Adam(steps=3),
        )
        for w in (weight, weight.float())
    ]  # fmt: skip
    view = found[0].client.release(X, Y)
    assert torch.equal(found[0].attack(view).x, found[1].attack(view).x)


def test_a_function_that_holds_half_precision_is_told_what_to_cast():
    weight = torch.ones(10).half()
    client = gl.Client(
        half(torch.float16),
        gl.GaussianNoise(0.1),
        loss=lambda z, y: torch.nn.functional.cross_entropy(z, y, weight=weight),
    )
    with pytest.raises(ValueError, match=r"copy of the network in float32.*weight\.to\(z\)"):
        gl.bayes(client, gl.Box(), optimizer=gl.Adam(steps=3)).attack(client.release(X, Y))
