import pytest
import torch
from torch import nn

import gradleak as gl
from gradleak.attacks.amortised import Amortised, Directions
from gradleak.data import Images


def test_directions_are_the_singular_vectors_of_the_gradients():
    model = gl.models.mlp((1, 8, 8), 10)
    images = gl.data.load("digits").take(range(30))
    g = gl.Client(model).gradient(images.x, images.y).map(torch.Tensor.detach)
    found = Directions.leading(g, 12)
    flat = torch.cat([v.flatten(1) for v in g.values()], 1)
    _, values, vectors = torch.linalg.svd(flat, full_matrices=False)
    held = torch.cat([found.entries[k] for k in g], 1)
    torch.testing.assert_close(held @ held.T, torch.eye(12), rtol=0, atol=1e-3)
    torch.testing.assert_close(found.power, values[:12].square() / 30, rtol=1e-3, atol=1e-9)
    aligned = (held * vectors[:12]).sum(1).abs()
    assert aligned.min() > 0.99
    torch.testing.assert_close(found(g), flat @ held.T, rtol=1e-4, atol=1e-5)


def mean_output(out, y):
    """A loss whose gradient is the input; not a lambda, since what is learnt has a name."""
    return out.mean()


def test_it_learns_the_posterior_mean_of_a_linear_client():
    """The gradient is x itself and pixels are Gaussian, so the best answer is a closed form."""
    rng = torch.Generator().manual_seed(0)
    mix = torch.randn(16, 16, generator=rng) / 16**0.5 * 0.15
    x = 0.5 + torch.randn(5000, 16, generator=rng) @ mix.T
    y = torch.zeros(5000, dtype=torch.long)
    images = Images("toy", "train", x.view(-1, 1, 4, 4), y, tuple(range(5000)), 1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 1, bias=False))
    client = gl.Client(model, gl.GaussianNoise(0.1), loss=mean_output)
    fitted = Amortised(client, images, 0.05, 0.2, rank=16, steps=800, width=128)
    fresh = (0.5 + torch.randn(500, 16, generator=rng) @ mix.T).clamp(0, 1).view(-1, 1, 4, 4)
    view = client.release(fresh, torch.zeros(500, dtype=torch.long))
    covariance = mix @ mix.T
    gain = covariance @ torch.linalg.inv(covariance + 0.1**2 * torch.eye(16))
    best = 0.5 + (view.g["1.weight"].flatten(1) - 0.5) @ gain.T
    errors = {name: gl.mse(guess, fresh).mean()
              for name, guess in (("best", best.view_as(fresh)), ("mean", 0 * fresh + 0.5),
                                  ("learnt", fitted.attack(view).x))}  # fmt: skip
    assert errors["learnt"] < 1.1 * errors["best"]
    assert errors["best"] < 0.7 * errors["mean"]


def test_what_it_was_not_trained_for_is_refused():
    images = gl.data.load("digits").take(range(40))
    client = gl.Client(gl.models.cnn((1, 8, 8), 10), gl.GaussianNoise(0.1))
    fitted = Amortised(client, images, 0.05, 0.2, rank=8, steps=2, width=8)
    told = r"trained for GaussianNoise\(scale=0.05\) to GaussianNoise\(scale=0.2\), this client has"
    for defense in (gl.LaplaceNoise(0.1), gl.GaussianNoise(1.0), gl.NoDefense()):
        other = gl.Client(client.model, defense)
        with pytest.raises(ValueError, match=told):
            fitted.attack(other.release(images.x[:1], images.y[:1]))
