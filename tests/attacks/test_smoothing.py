"""The ball objective: where its points lie, and what their mean is in closed form."""

from dataclasses import replace

import pytest
import scipy.stats
import torch

import gradleak as gl
from gradleak.priors.prior import Moment

X, Y = gl.data.batch("digits", range(4))


def test_points_are_uniform_in_volume():
    """(|u| / radius)^3 is uniform on [0, 1] in three dimensions, and directions are on a sphere."""
    x = torch.zeros(200, 3, dtype=torch.double)
    ball = gl.Ball(0.7, samples=10)
    u = ball.points(x, [(n,) for n in range(200)], Moment(0, 1)).flatten(0, 1)
    volume = (u.norm(dim=1) / 0.7) ** 3
    assert scipy.stats.kstest(volume.numpy(), "uniform").pvalue > 1e-3
    direction = (u / u.norm(dim=1, keepdim=True))[:, 0]  # uniform on [-1, 1] on a sphere
    assert scipy.stats.kstest(direction.numpy(), "uniform", (-1, 2)).pvalue > 1e-3


def test_the_radius_falls_to_zero():
    x = torch.rand(2, 1, 4, 4)
    radius = torch.tensor([0.5, 2.0])
    for moment in (Moment(0, 4), Moment(2, 4), Moment(4, 4)):
        points = gl.Ball(radius, samples=50).points(x, [(0,), (1,)], moment)
        far = (points - x[:, None]).flatten(2).norm(dim=2).amax(1)
        assert (far <= (1 - moment.progress) * radius + 1e-6).all()
        assert (far >= 0.8 * (1 - moment.progress) * radius).all()


def test_mean_over_the_ball_is_the_closed_form_of_a_quadratic():
    """For -|x - c|^2 it is -|x - c|^2 minus the mean of |u|^2, radius^2 d / (d + 2)."""
    x, c, d = torch.zeros(1, 6, dtype=torch.double), 0.3, 6
    mean = gl.Ball(0.5, samples=200_000).around(
        lambda points, _: -(points - c).square().sum(1), [(0,)]
    )
    expected = -(c**2) * d - 0.5**2 * d / (d + 2)
    assert float(mean(x, Moment(0, 1))) == pytest.approx(expected, abs=2e-3)
    assert float(mean(x, Moment(1, 1))) == pytest.approx(-(c**2) * d)


def test_it_bounds_the_logarithm_of_the_mass_from_below():
    """Jensen's inequality, on the same points."""
    x, key = torch.full((1, 2), 0.4, dtype=torch.double), [(3,)]
    ball = gl.Ball(0.3, samples=1000)

    def log_density(points, _=None):
        return -(points - 0.5).square().sum(1) / (2 * 0.1**2)

    bound = float(ball.around(log_density, key)(x, Moment(0, 1)))
    mass = log_density(ball.points(x, key, Moment(0, 1))[0]).exp().mean().log()
    assert bound <= float(mass)


def test_attacks_with_a_ball_do_not_mix():
    client = gl.Client(gl.models.cnn((1, 8, 8), 10).double(), gl.GaussianNoise(0.1))
    view = client.release(X, Y)
    search = gl.Adam(steps=4, lr=0.05)
    several = [
        gl.bayes(client, gl.TotalVariation(w), optimizer=search, ball=gl.Ball(r, 3), restarts=2)
        for w, r in ((1.0, 0.5), (3.0, 2.0))
    ]
    together = gl.attacks.attack_all([(a, view) for a in several], chunk=5)
    for adversary, found in zip(several, together, strict=True):
        alone = adversary.attack(view[[2]])
        torch.testing.assert_close(found.x[2:3], alone.x, rtol=1e-6, atol=1e-8)
        plain = replace(adversary, ball=None).attack(view)
        assert not torch.allclose(found.x, plain.x, atol=1e-4)
        again = gl.attacks.log_posterior(adversary, view.g, view.y)(found.x)
        torch.testing.assert_close(again, found.log_posterior)


def test_a_tiny_ball_is_no_ball():
    client = gl.Client(gl.models.cnn((1, 8, 8), 10).double(), gl.GaussianNoise(0.1))
    view = client.release(X, Y)
    plain = gl.bayes(client, gl.Flat(), optimizer=gl.Adam(steps=5))
    small = replace(plain, ball=gl.Ball(1e-9, samples=2))
    torch.testing.assert_close(small.attack(view).x, plain.attack(view).x, rtol=0, atol=1e-5)


def test_bad_balls_are_refused():
    for radius, samples in ((0.0, 4), (-1.0, 4), (1.0, 0)):
        with pytest.raises(ValueError, match="use ball=None"):
            gl.Ball(radius, samples)
