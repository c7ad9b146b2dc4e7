"""Posteriors on a grid, against the linear-Gaussian client, where they are closed forms."""

import math

import pytest
import scipy.stats
import torch
from torch import nn

import gradleak as gl
from gradleak.attacks.grid import on_plane

PRIOR = torch.distributions.Normal(0.4, 0.2)
SCALE = 0.1


def log_posterior(g):
    """Of a client whose gradient is x itself, under Gaussian noise and a Gaussian prior."""
    model = nn.Linear(2, 1, bias=False).double()
    client = gl.Client(model, gl.GaussianNoise(SCALE), loss=lambda out, y: out.mean())
    released = gl.Gradient({"weight": g.reshape(1, 1, 2).double()})

    def f(x):
        y = torch.zeros(len(x), dtype=torch.long)
        return client.log_prob(released, x, y) + PRIOR.log_prob(x).sum(1)

    return f


@pytest.fixture(scope="module")
def posterior():
    return on_plane(log_posterior(torch.tensor([0.55, 0.35])), -1.0, 2.0, n=600)


def closed_form(g):
    precision = 1 / SCALE**2 + 1 / 0.2**2
    return (g / SCALE**2 + 0.4 / 0.2**2) / precision, precision**-0.5


def test_it_integrates_to_one_and_is_the_closed_form(posterior):
    mean, spread = closed_form(torch.tensor([0.55, 0.35]).double())
    assert float(posterior.density.sum()) * posterior.cell == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(posterior.mean, mean, rtol=0, atol=1e-6)
    along = posterior.density.sum(1) * posterior.cell**0.5
    variance = along @ (posterior.axis - mean[0]) ** 2 * posterior.cell**0.5
    assert float(variance) == pytest.approx(spread**2, abs=1e-6)
    axes = [torch.tensor(scipy.stats.norm.pdf(posterior.axis, m, spread)) for m in mean]
    torch.testing.assert_close(posterior.density, torch.outer(*axes), rtol=0, atol=1e-6)


def test_all_answers_agree_on_a_gaussian(posterior):
    mean, _ = closed_form(torch.tensor([0.55, 0.35]).double())
    width = posterior.cell**0.5
    for answer in (posterior.mode, posterior.best(0.1), posterior.best(0.3)):
        assert (answer - mean).abs().max() <= width


def test_all_mass_is_within_what_spans_the_plane(posterior):
    for delta in (3 * math.sqrt(2), 1e4, 1e18):
        torch.testing.assert_close(posterior.mass(delta), torch.ones(600, 600).double())


def test_mass_within_delta_is_the_closed_form(posterior):
    """Within delta of its mean, a round Gaussian has mass 1 - exp(-delta^2 / 2 spread^2)."""
    mean, spread = closed_form(torch.tensor([0.55, 0.35]).double())
    for delta in (0.05, 0.1, 0.2):
        expected = 1 - math.exp(-(delta**2) / (2 * spread**2))
        assert posterior.within(mean, delta) == pytest.approx(expected, abs=0.01)
        assert float(posterior.mass(delta).max()) == pytest.approx(expected, abs=0.01)


def test_the_mode_is_not_the_optimum_beside_a_broad_hill():
    """A needle with little mass is the mode; the hill beside it has more mass within delta."""

    def log_density(x):
        needle = -(x - 0.2).square().sum(1) / (2 * 0.01**2) + math.log(0.2 / 0.01**2)
        hill = -(x - 0.7).square().sum(1) / (2 * 0.1**2) + math.log(0.8 / 0.1**2)
        return torch.logaddexp(needle, hill)

    found = on_plane(log_density, n=400)
    assert (found.mode - 0.2).abs().max() < 0.01
    assert (found.best(0.1) - 0.7).abs().max() < 0.02
    assert found.within(found.best(0.1), 0.1) > found.within(found.mode, 0.1)
    with pytest.raises(ValueError, match="smaller than a cell"):
        found.mass(0.001)


def test_a_climb_ends_at_the_top_of_a_gaussian(posterior):
    mean, _ = closed_form(torch.tensor([0.55, 0.35]).double())
    start = torch.tensor([0.9, 0.95])
    path = posterior.climb(start, gl.Adam(steps=300, lr=0.05, decay=0.97))
    assert path.shape == (300, 2)
    torch.testing.assert_close(path[0], start.double())
    torch.testing.assert_close(path[-1], mean, rtol=0, atol=1e-3)


def test_no_answer_has_a_better_chance_than_the_optimum():
    """The optimum is a midpoint, so a mean between midpoints may catch one more ring of cells."""
    for seed in range(5):
        centres = torch.rand(3, 2, generator=torch.manual_seed(seed)).double()
        found = on_plane(lambda x, c=centres: (-torch.cdist(x, c) / 0.05).logsumexp(1), n=100)
        chances = found.chances(0.1)
        assert list(chances) == list(found.answers(0.1))
        assert max(chances.values()) <= chances["optimum"] + 0.01
