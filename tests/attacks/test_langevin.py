import pytest
import torch
from torch import nn

import gradleak as gl
from gradleak.attacks.langevin import Langevin, Mean, MostWithin, PosteriorSamples, Sample
from gradleak.priors.score import Learned

SHAPE = (1, 4, 4)
MEAN, SPREAD, SCALE = 0.4, 0.2, 0.1


class Exact(nn.Module):
    """The best denoiser of N(MEAN, SPREAD^2) pixels, a closed form."""

    shape = SHAPE

    def forward(self, x, sigma):
        s = sigma.view(-1, 1, 1, 1)
        return MEAN + SPREAD**2 / (SPREAD**2 + s**2) * (x - MEAN)


def linear(gains):
    """A client that releases gains * x plus noise: the gradient of a sum of weighted pixels."""

    class Gains(nn.Module):
        def forward(self, x):
            return x * gains

    model = nn.Sequential(Gains(), nn.Flatten(), nn.Linear(16, 1, bias=False).double())
    return gl.Client(model, gl.GaussianNoise(SCALE), loss=lambda out, y: out.mean())


def test_samples_have_the_mean_and_the_spread_of_the_closed_form():
    gains = torch.linspace(0.2, 3, 16, dtype=torch.double).view(SHAPE)
    client = linear(gains)
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(2, *SHAPE, generator=rng, dtype=torch.double)
    view = client.release(x, torch.zeros(2, dtype=torch.long))
    prior = Learned(Exact(), "exact", start=0.5, end=0.02)
    how = Langevin(steps=600, rate=0.2)
    attack = PosteriorSamples(client, prior, 300, how)
    found = attack.attack(view).samples
    assert found.shape == (2, 300, *SHAPE)
    told, known = (gains / SCALE) ** 2, 1 / SPREAD**2
    g = view.g["2.weight"].view_as(x)
    mean = (gains / SCALE**2 * g + known * MEAN) / (told + known)
    spread = (told + known).rsqrt().expand_as(mean)
    error = (found.mean(1) - mean) / (spread / 300**0.5)
    assert error.abs().max() < 5
    assert error.square().mean() < 2
    torch.testing.assert_close(found.std(1) / spread, torch.ones_like(spread), rtol=0, atol=0.25)
    assert abs((found.std(1) / spread).mean() - 1) < 0.08


def test_a_draw_depends_on_its_key_alone():
    client = linear(torch.ones(SHAPE, dtype=torch.double))
    x = torch.rand(3, *SHAPE, dtype=torch.double)
    view = client.release(x, torch.zeros(3, dtype=torch.long), key=[4, 7, 9])
    prior, how = Learned(Exact(), "exact"), Langevin(steps=20)
    all_of_them = PosteriorSamples(client, prior, 3, how).attack(view).samples
    alone = PosteriorSamples(client, prior, 2, how).attack(view[[1]]).samples
    torch.testing.assert_close(alone[0], all_of_them[1, :2])
    assert not torch.allclose(all_of_them[0, 0], all_of_them[0, 1])


def test_answers_are_made_of_the_samples():
    client = linear(torch.ones(SHAPE, dtype=torch.double))
    view = client.release(torch.rand(2, *SHAPE, dtype=torch.double), torch.zeros(2).long())
    for answer in (Mean(), Sample(2), MostWithin(1.0)):
        how = PosteriorSamples(client, Learned(Exact(), "exact"), 4, Langevin(steps=5), answer)
        found = how.attack(view, seed=3)
        assert torch.equal(found.x, answer(found.samples))
    assert torch.equal(Mean()(found.samples), found.samples.mean(1))
    assert torch.equal(Sample(2)(found.samples), found.samples[:, 2])


def test_a_neighbour_at_delta_itself_counts():
    samples = torch.tensor([9.0, 0.0, 1.0]).view(1, 3, 1, 1, 1)
    assert MostWithin(1.0)(samples).item() == 0


def test_the_choice_within_delta_is_the_one_with_most_neighbours():
    points = torch.tensor([0.0, 0.9, 1.0, 1.1, 3.0]).view(1, 5, 1, 1, 1)
    assert MostWithin(0.15)(points).item() == 1.0
    assert MostWithin(0.01)(points).item() == 0.0  # all alike: the first


def test_bad_settings_are_told():
    for bad in (dict(steps=0), dict(rate=2.0), dict(rate=0.0), dict(look=0)):
        with pytest.raises(ValueError, match=f"{next(iter(bad))} must be"):
            Langevin(**bad)
