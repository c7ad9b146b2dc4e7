import pytest
import torch
from torch import Tensor

import gradleak as gl
from gradleak.attacks import undo_ats
from gradleak.attacks.undo_ats import undo
from gradleak.data import Images
from gradleak.defenses.ats import ATS, Transformation
from gradleak.priors.gaussians import LowRankGaussian


def gaussian(rank=3, side=5, seed=0):
    """Images around grey that no operation below clips."""
    rng = torch.Generator().manual_seed(seed)
    directions = 0.02 * torch.randn(rank, 1, side, side, generator=rng, dtype=torch.double)
    mean = 0.4 + 0.02 * torch.randn(1, side, side, generator=rng, dtype=torch.double)
    return LowRankGaussian(mean, directions, variance=4e-4)


def dense(images: LowRankGaussian, t: Transformation, noise: float) -> tuple[Tensor, ...]:
    """The oracle: T's matrix by its columns, and the covariances written out."""
    size = images.mean.numel()
    basis = torch.eye(size, dtype=torch.double).view(size, *images.mean.shape)
    grey = torch.full_like(images.mean, 0.5)
    a = ((t(grey + 1e-3 * basis) - t(grey)) / 1e-3).flatten(1).T
    w = images.directions.flatten(1).T
    sigma = w @ w.T + images.variance * torch.eye(size).double()
    return a, sigma, a @ sigma @ a.T + noise**2 * torch.eye(size).double()


POLICY = ATS("3-15")  # a translation and a brightness, each of both signs


@pytest.mark.parametrize("place", [0, 100, 200, 323])
def test_the_affine_gaussian_equals_the_dense_closed_form(place):
    images, noise = gaussian(), 0.05
    t = POLICY.every()[0][place]
    a, sigma, covariance = dense(images, t, noise)
    u = torch.rand(4, 1, 5, 5, dtype=torch.double)
    found = undo_ats._Affine(t, images, noise)
    normal = torch.distributions.MultivariateNormal(t(images.mean).flatten(), covariance)
    expected = normal.log_prob(u.flatten(1))
    log_prob = found.log_prob(u)
    torch.testing.assert_close(log_prob, expected)
    gain = sigma @ a.T @ torch.linalg.inv(covariance)
    mean = images.mean.flatten() + (u - t(images.mean)).flatten(1) @ gain.T
    torch.testing.assert_close(found.mean(u).flatten(1), mean)


def test_the_posterior_is_calibrated_and_its_mean_is_the_best_guess():
    """On images drawn from the Gaussian itself: chances come true, no guess is nearer."""
    images, noise, n = gaussian(side=8), 0.03, 150
    rng = torch.Generator().manual_seed(1)
    z = torch.randn(n, 3, generator=rng, dtype=torch.double)
    x = images.mean + torch.einsum("nk,kchw->nchw", z, images.directions)
    x = x + images.variance**0.5 * torch.randn(x.shape, generator=rng, dtype=torch.double)
    every, chances = POLICY.every()
    drawn = torch.multinomial(chances, n, replacement=True, generator=rng).tolist()
    u = torch.stack([every[k](one) for k, one in zip(drawn, x, strict=True)])
    u = u + noise * torch.randn(u.shape, generator=rng, dtype=torch.double)
    found = undo(u, POLICY, images, noise)
    truth = torch.tensor(drawn)
    on_truth = found.chances.gather(1, truth.unsqueeze(1)).squeeze(1)
    right = (found.chances.argmax(1) == truth).double().mean()
    claimed = found.chances.max(1).values.mean()
    assert abs(right - claimed) < 0.12
    assert on_truth.mean() > 50 * chances.max()
    error = (found.averaged - x).square().mean()
    assert error <= (found.picked - x).square().mean() * 1.01
    assert error < (u - x).square().mean() / 2
    assert error < (images.mean - x).square().mean()


def test_a_fit_recovers_mean_and_spread():
    images = gaussian(rank=2, side=6)
    z = torch.randn(4000, 2, dtype=torch.double)
    x = images.mean + torch.einsum("nk,kchw->nchw", z, images.directions)
    x = x + images.variance**0.5 * torch.randn(x.shape, dtype=torch.double)
    images_of_it = Images("toy", "train", x, torch.zeros(4000), tuple(range(4000)), 1)
    fit = LowRankGaussian.fit(images_of_it, rank=2)
    torch.testing.assert_close(fit.mean, images.mean, rtol=0, atol=6e-3)
    assert fit.variance == pytest.approx(float(images.variance), rel=0.05)
    assert repr(fit).startswith("LowRankGaussian(rank 2, variance 0.0004")
    w, v = images.directions.flatten(1), fit.directions.flatten(1)
    torch.testing.assert_close(v.T @ v, w.T @ w, rtol=0, atol=2e-4)


def test_what_cannot_be_undone_is_told():
    images, u = gaussian(side=8), torch.rand(1, 1, 8, 8)
    with pytest.raises(ValueError, match=r"equalize cannot be undone.*not affine"):
        undo(u, ATS("9-3"), images, 0.1)
    with pytest.raises(ValueError, match="noise must be a number in"):
        undo(u, POLICY, images, 0.0)


def test_undoing_finds_digits_behind_a_policy():
    """Shifted and darkened digits, seen almost clearly: nearer to the digits than what was seen."""
    test = gl.data.load("digits").take(range(8))
    images = LowRankGaussian.fit(gl.data.load("digits", "train"), rank=20)
    ats = ATS("7-15")
    seen = ats(test.x, [(0, k) for k in test.index])
    found = undo(seen, ats, images, noise=0.03)
    best = [torch.maximum(gl.psnr(v, test.x), gl.psnr(v.flip(-1), test.x)).mean()
            for v in (seen, found.picked)]  # fmt: skip
    assert best[1] > best[0] + 3
