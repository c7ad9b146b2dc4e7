from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

import gradleak as gl
from gradleak.attacks.unrolled import Unrolled
from gradleak.data import Images


def gaussian_images(count, rng):
    """Images of 4x4 Gaussian pixels, alike where they are near, with their covariance."""
    place = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0))
    mix = 0.06 * torch.exp(-torch.cdist(place, place).square() / 2)
    x = (0.5 + torch.randn(count, 16, generator=rng) @ mix.T).clamp(0, 1).view(-1, 1, 4, 4)
    y = torch.zeros(count, dtype=torch.long)
    return Images("toy", "train", x, y, tuple(range(count)), 1), mix @ mix.T


def mean_output(out, y):
    """A loss whose gradient is the input; not a lambda, since what is learnt has a name."""
    return out.mean()


def linear_client():
    """Its gradient is a fixed linear map of x, so the posterior is Gaussian."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 1, bias=False))
    return gl.Client(model, loss=mean_output)


@dataclass(frozen=True)
class HalfMasked:
    """A family of defenses: half of the entries hidden, then noise."""

    def __call__(self, scale):
        return gl.RandomMask(0.5, then=gl.GaussianNoise(scale))


def noised(client, scale):
    return replace(client, defense=gl.GaussianNoise(scale))


@pytest.mark.slow
def test_it_learns_the_posterior_mean_of_a_linear_client():
    """The gradient is x itself and pixels are Gaussian, so the best answer is a closed form."""
    rng = torch.Generator().manual_seed(0)
    images, covariance = gaussian_images(1500, rng)
    client, how = linear_client(), dict(stages=2, steps=150, width=8, batch_size=32, lr=4e-3)
    fitted = Unrolled(client, gl.GaussianNoise, images, 0.05, 0.2, **how)
    fresh, _ = gaussian_images(500, rng)
    for scale in (0.05, 0.2):
        view = noised(client, scale).release(fresh.x, fresh.y)
        gain = covariance @ torch.linalg.inv(covariance + scale**2 * torch.eye(16))
        best = 0.5 + (view.g["1.weight"].flatten(1) - 0.5) @ gain.T
        least = gl.mse(best.view_as(fresh.x), fresh.x).mean()
        found = gl.mse(fitted.attack(view).x, fresh.x).mean()
        blind = gl.mse(fitted.learnt.start[fresh.y], fresh.x).mean()
        assert least * 0.99 < found < 1.3 * least < blind


def test_an_answer_depends_on_its_own_client_only():
    images = gl.data.load("digits")
    model = gl.models.cnn((1, 8, 8), 10)
    client, some = gl.Client(model), images.take(range(130))
    fitted = Unrolled(client, HalfMasked(), some, 0.05, 0.2, stages=2, steps=3, width=8)
    some = images.take(range(200, 270))
    client = replace(client, defense=HalfMasked()(0.1))
    view = client.release(some.x, some.y, key=some.index)
    whole = fitted.attack(view).x
    torch.testing.assert_close(whole[66:68], fitted.attack(view[66:68]).x, rtol=0, atol=2e-2)
    assert whole.min() >= 0
    assert whole.max() <= 1


@pytest.mark.slow
def test_each_stage_adds_something_on_a_network():
    images = gl.data.load("digits", "train").take(range(400))
    client = gl.Client(gl.models.mlp((1, 8, 8), 10))
    how = dict(stages=2, steps=60, width=8, batch_size=32, lr=4e-3)
    fitted = Unrolled(client, gl.GaussianNoise, images, 0.02, 0.05, **how)
    test = gl.data.load("digits", "test").take(range(100))
    view = noised(client, 0.03).release(test.x, test.y)
    start = gl.mse(fitted.learnt.start[test.y], test.x).mean()
    short = replace(fitted, stages=1)
    one, two = (gl.mse(f.attack(view).x, test.x).mean() for f in (short, fitted))
    assert two < 0.9 * one
    assert one < 0.9 * start


def test_the_slope_is_that_of_the_log_likelihood():
    images = gl.data.load("digits").take(range(3))
    client = gl.Client(gl.models.mlp((1, 8, 8), 10).double(), gl.GaussianNoise(0.5))
    x, y = images.x.double(), images.y
    g = client.release(x, y).g
    away = torch.rand(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    slope, step = client.slope(g, away, y), 1e-5 * torch.randn_like(away)
    rise = client.log_prob(g, away + step, y) - client.log_prob(g, away - step, y)
    torch.testing.assert_close(rise / 2, (slope * step).flatten(1).sum(1), rtol=1e-3, atol=1e-9)


def test_what_it_was_not_trained_for_is_refused():
    images = gl.data.load("digits").take(range(40))
    model = gl.models.cnn((1, 8, 8), 10)
    client = gl.Client(model)
    fitted = Unrolled(client, gl.GaussianNoise, images, 0.05, 0.2, stages=1, steps=2, width=8)
    told = r"trained for GaussianNoise\(scale=0.05\) to GaussianNoise\(scale=0.2\), this client has"
    for defense in (gl.GaussianNoise(1.0), gl.LaplaceNoise(0.1), gl.NoDefense(), HalfMasked()(0.1)):
        view = replace(client, defense=defense).release(images.x[:1], images.y[:1])
        with pytest.raises(ValueError, match=told):
            fitted.attack(view)
    with pytest.raises(ValueError, match="one image"):
        Unrolled(gl.Client(model, batch_size=2), gl.GaussianNoise, images, 0.1, 1)
