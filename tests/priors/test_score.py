from dataclasses import replace

import pytest
import torch
from torch import nn

import gradleak as gl
from gradleak.identity import digest
from gradleak.priors.prior import Moment
from gradleak.priors.score import Denoiser, Learned, read_denoiser, trained_denoiser

SHAPE = (1, 8, 8)


class Exact(nn.Module):
    """The best denoiser of N(mean, spread^2) pixels, a closed form."""

    shape = SHAPE
    mean, spread = 0.4, 0.2

    def forward(self, x, sigma):
        s = sigma.view(-1, 1, 1, 1)
        return self.mean + self.spread**2 / (self.spread**2 + s**2) * (x - self.mean)


def test_the_slope_is_that_of_the_noised_density():
    x = torch.rand(3, *SHAPE, dtype=torch.double)
    for step in (0, 2, 5):
        prior = Learned(Exact(), "exact", start=0.8, end=0.1).at(Moment(step, 5))
        progress = step / 5
        assert prior.level == pytest.approx(0.8 ** (1 - progress) * 0.1**progress)
        free = x.clone().requires_grad_()
        width = (Exact.spread**2 + prior.level**2) ** 0.5
        mean, width = (torch.tensor(v, dtype=torch.double) for v in (Exact.mean, width))
        density = torch.distributions.Normal(mean, width).log_prob(free)
        (right,) = torch.autograd.grad(density.sum(), free)
        torch.testing.assert_close(prior.score(x), right)
        slopes = []
        for seed in range(400):
            value = replace(prior, seed=seed).log_prob(free)
            assert (value == 0).all()
            slopes.append(torch.autograd.grad(value.sum(), free)[0])
        slopes = torch.stack(slopes)
        error = (slopes.mean(0) - right) / (slopes.std(0) / 400**0.5)
        assert error.abs().max() < 5
        assert error.square().mean() < 1.5


def test_weights_differ_by_attack_and_clients_may_hold_several_images():
    x = torch.rand(2, 3, *SHAPE, dtype=torch.double, requires_grad=True)
    weighted = Learned(Exact(), "exact", weight=torch.tensor([1.0, 2.0]).double())
    one = Learned(Exact(), "exact")
    (slope,) = torch.autograd.grad(weighted.log_prob(x).sum(), x)
    for n, weight in ((0, 1.0), (1, 2.0)):
        (alone,) = torch.autograd.grad(one.log_prob(x[n]).sum(), x)
        torch.testing.assert_close(slope[n], weight * alone[n])


def test_the_climb_anneals_it():
    """In a linear-Gaussian client the end of the climb is the closed form at the last level."""
    model = nn.Linear(64, 1, bias=False).double()
    client = gl.Client(
        nn.Sequential(nn.Flatten(), model), gl.GaussianNoise(0.1), loss=lambda out, y: out.mean()
    )
    x = torch.rand(2, *SHAPE, dtype=torch.double)
    view = client.release(x, torch.zeros(2, dtype=torch.long))
    prior = Learned(Exact(), "exact", start=0.15, end=0.05)
    climb = gl.Adam(steps=1500, lr=0.02, decay=0.997)
    found = gl.bayes(client, gl.Sum((prior,)), optimizer=climb).attack(view).x
    g = view.g["1.weight"].view_as(x)
    closed = {}
    for level in (0.15, 0.05):
        told, known = 1 / 0.1**2, 1 / (Exact.spread**2 + level**2)
        closed[level] = (told * g + known * Exact.mean) / (told + known)
    torch.testing.assert_close(found, closed[0.05], rtol=0, atol=0.025)
    far = {level: (found - image).abs().mean() for level, image in closed.items()}
    assert far[0.05] < far[0.15] / 2


class DenoiserOfDeepinv(nn.Module):
    """The signature of deepinv.models.Denoiser, and what it says of itself: nothing."""

    def forward(self, x: torch.Tensor, sigma: float | torch.Tensor, *args, **kwargs):
        return Exact()(x, sigma)


def test_a_denoiser_of_deepinv_fits_as_it_is():
    x = torch.rand(3, *SHAPE, dtype=torch.double)
    theirs, ours = (Learned(d, "any", start=3.0, end=0.001) for d in (DenoiserOfDeepinv(), Exact()))
    torch.testing.assert_close(theirs.score(x), ours.score(x))
    assert theirs.sources == []
    client = gl.Client(gl.models.mlp(SHAPE, 10), gl.GaussianNoise(0.1))
    view = client.release(*gl.data.batch("digits", range(2)))
    climb = gl.Adam(steps=20, decay=0.9)
    found = [gl.bayes(client, p, optimizer=climb).attack(view).x for p in (theirs, ours)]
    assert torch.equal(*found)


@pytest.fixture(scope="module")
def digits():
    return gl.data.load("digits", "train")


@pytest.mark.slow
def test_a_denoiser_learns_is_kept_and_comes_back(digits, tmp_path):
    some = digits.take(range(400))
    made = trained_denoiser(some, tmp_path, steps=150, width=8)
    (path,) = tmp_path.glob("*.safetensors")
    again = trained_denoiser(some, tmp_path, steps=150, width=8)
    test = gl.data.load("digits").take(range(50)).x
    noise = torch.randn(test.shape, generator=torch.Generator().manual_seed(0))
    for level in (0.2, 0.5):
        noisy, sigma = test + level * noise, torch.full((50,), level)
        cleaned = made(noisy, sigma)
        assert torch.equal(cleaned, again(noisy, sigma))
        shrunk = 0.5 + (noisy - 0.5) * test.var() / (test.var() + level**2)
        assert gl.mse(cleaned, test).mean() < gl.mse(shrunk, test).mean()
    assert made.trained_on.shared(digits.take([399, 400])) == [399]
    name = digest(made)
    assert name == digest(again) == digest(read_denoiser(path))
    again.last[2].bias.data += 1e-6
    assert digest(again) != name
    path.write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="cannot be read as a denoiser"):
        read_denoiser(path)
    gl.models.save(gl.models.mlp(SHAPE, 10), path)
    with pytest.raises(ValueError, match="cannot be read as a denoiser"):
        read_denoiser(path)


def test_denoisers_are_named_after_how_they_were_made(digits, tmp_path):
    some = digits.take(range(70))
    names = [digest(trained_denoiser(some, tmp_path, steps=1, width=8))]
    assert digest(trained_denoiser(some, tmp_path / "b", steps=1, width=8, seed=0)) == names[0]
    changed = replace(some, x=some.x.clone())
    changed.x[3, 0, 2, 2] += 0.01
    names += [digest(trained_denoiser(changed, tmp_path, steps=1, width=8))]
    names += [digest(trained_denoiser(some, tmp_path, steps=2, width=8))]
    names += [digest(trained_denoiser(some, tmp_path, steps=1, width=8, lr=1e-3))]
    assert len(set(names)) == len(list(tmp_path.glob("*.safetensors"))) == 4


def test_denoisers_of_photographs_of_two_sizes_are_two(tmp_path):
    for shape in ((1, 8, 8), (3, 16, 16)):
        some = gl.data.photographs(shape, 20)
        assert trained_denoiser(some, tmp_path, steps=1, width=8).shape == shape


def test_bad_levels_and_images_are_told():
    for start, end in ((0.5, 0.001), (0.1, 0.2), (5.0, 0.1)):
        with pytest.raises(ValueError, match=r"levels must fall within .* 0.01 to 2.0"):
            Learned(Denoiser(SHAPE, 0.3, 8), "small", start=start, end=end)
    with pytest.raises(ValueError, match=r"must fall within .* 0.0 to inf"):
        Learned(Exact(), "exact", start=0.1, end=0.2)
    with pytest.raises(ValueError, match=r"made for images \(1, 8, 8\), these are \(3, 9, 9\)"):
        Denoiser(SHAPE, 0.3, 8)(torch.rand(2, 3, 9, 9), torch.ones(2))
