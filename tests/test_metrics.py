import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gradleak as gl


def test_psnr_by_hand():
    x = torch.zeros(3, 1, 2, 2)
    x_hat = torch.tensor([0.1, 1.0, 0.0]).reshape(3, 1, 1, 1).expand_as(x)
    assert gl.mse(x_hat, x).tolist() == pytest.approx([0.01, 1.0, 0.0])
    assert gl.psnr(x_hat, x).tolist() == pytest.approx([20.0, 0.0, math.inf])


def test_reconstructions_are_clipped_first():
    x = torch.ones(1, 1, 2, 2)
    assert gl.mse(x + 5, x).item() == 0


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
def test_ssim_is_one_for_equal_images_and_falls_with_noise(shape):
    torch.manual_seed(0)
    x = torch.rand(2, *shape)
    assert gl.ssim(x, x).tolist() == pytest.approx([1, 1])
    slight, strong = (gl.ssim(x + s * torch.randn_like(x), x) for s in (0.05, 0.5))
    assert (slight > strong).all()
    assert (slight < 1).all()


def test_within_is_the_delta_ball():
    x = torch.zeros(2, 1, 2, 2)
    x_hat = torch.tensor([0.4, 0.6]).reshape(2, 1, 1, 1).expand_as(x)
    assert gl.metrics.within(x_hat, x, delta=1.0).tolist() == [True, False]


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(0, 100))
def test_matching_is_the_best_of_all_permutations(batch, seed):
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(2, batch, 1, 3, 3, generator=rng)
    x_hat = torch.rand(2, batch, 1, 3, 3, generator=rng)
    matched = gl.metrics.match(x_hat, x)
    for n in range(2):
        errors = [
            (x_hat[n, list(p)] - x[n]).square().sum() for p in itertools.permutations(range(batch))
        ]
        torch.testing.assert_close((matched[n] - x[n]).square().sum(), min(errors))


def test_intervals_cover_the_mean_about_as_often_as_they_claim():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        found = gl.interval(rng.normal(3, 1, size=30))
        covered += found.low <= 3 <= found.high
    # 95 % nominal; the binomial's own spread and the bootstrap's small-sample shortfall
    assert 175 <= covered <= 199


def test_intervals_of_equal_values_are_a_point():
    found = gl.interval([2.0, 2.0, 2.0])
    assert (found.mean, found.low, found.high, found.n) == (2.0, 2.0, 2.0, 3)
    assert f"{found:.1f}" == "2.0 [2.0, 2.0]"
    with pytest.raises(ValueError, match="finite"):
        gl.interval([1.0, math.inf])
    with pytest.raises(ValueError, match="finite"):
        gl.interval([])


@pytest.mark.parametrize("n", [1, 12, 50])
def test_shares_have_wilsons_interval(n):
    """By its definition: all p from which the count is no more than 1.96 deviations away."""
    p, z = np.linspace(0, 1, 100_001), scipy.stats.norm.ppf(0.975)
    for count in range(n + 1):
        found = gl.metrics.share([True] * count + [False] * (n - count))
        near = p[np.abs(count / n - p) <= z * np.sqrt(p * (1 - p) / n) + 1e-12]
        assert (found.mean, found.n) == (count / n, n)
        assert (found.low, found.high) == pytest.approx((near[0], near[-1]), abs=2e-5)


def test_none_of_twelve_may_be_a_quarter():
    assert f"{gl.metrics.share(torch.zeros(12, dtype=torch.bool)):.2f}" == "0.00 [0.00, 0.24]"
    for wrong in ([], [0.5], [2], [math.nan, 1]):
        with pytest.raises(ValueError, match="true or false"):
            gl.metrics.share(wrong)
    with pytest.raises(ValueError, match=r"use metrics\.share"):
        gl.interval([False] * 12)


def test_pairs_are_compared_image_by_image():
    rng = np.random.default_rng(1)
    a = rng.normal(20, 5, size=25)
    b = a - 1 + rng.normal(0, 0.1, size=25)
    found = gl.paired(a, b)
    assert found.difference.low > 0.9
    assert found.difference.high < 1.1
    assert found.p == pytest.approx(scipy.stats.wilcoxon(a, b).pvalue)
    assert gl.paired(a, a).p == 1
    with pytest.raises(ValueError, match="must match"):
        gl.paired([1.0], [1.0, 2.0])


def test_corrected_p_values_are_holms():
    """By hand: sorted p times the number of hypotheses left, never falling, at most one."""
    assert gl.metrics.holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert gl.metrics.holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])
    assert gl.metrics.holm([]) == []


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="x_hat is"):
        gl.mse(torch.zeros(2, 1, 3, 3), torch.zeros(1, 1, 3, 3))
