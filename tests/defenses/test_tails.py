"""Log chances of small entries, against arbitrary precision, far into the tails."""

import mpmath
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gradleak.defenses import tails

mpmath.mp.dps = 60
ROUNDING = {torch.float32: (2e-6, 2e-5), torch.float64: (1e-12, 1e-11)}  # value, slope
SIZES = st.floats(-12, 4).map(lambda power: 10**power)


def gaussian(m, tau):
    """log P(|m + N(0, 1)| < tau) and its slope in m."""
    root = mpmath.sqrt(2)
    chance = (mpmath.erfc((m - tau) / root) - mpmath.erfc((m + tau) / root)) / 2
    return mpmath.log(chance), (mpmath.npdf(m + tau) - mpmath.npdf(m - tau)) / chance


def laplace(m, tau):
    """The same for Laplace noise; its corner at m = tau has the slope from outside."""
    if m >= tau:
        return mpmath.log(mpmath.sinh(tau)) - m, -1
    chance = 1 - mpmath.exp(-tau) * mpmath.cosh(m)
    return mpmath.log(chance), -mpmath.exp(-tau) * mpmath.sinh(m) / chance


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("chance", [gaussian, laplace])
@settings(max_examples=300, deadline=None)
@given(tau=SIZES, beyond=st.floats(-1, 20) | SIZES)
@example(tau=1.0, beyond=-1.0)
@example(tau=1e-30, beyond=1e4)
@example(tau=3.0, beyond=5.0)
@example(tau=0.1, beyond=7.9)
def test_chances_and_slopes_are_exact(chance, dtype, tau, beyond):
    """For entries inside of the bound, on it, and far beyond it."""
    m = torch.tensor([max(tau + beyond, 0.0)], dtype=dtype)
    tau = torch.tensor([tau], dtype=dtype)
    value, slope = (float(v) for v in getattr(tails, chance.__name__)(m, tau))
    true, true_slope = map(float, chance(mpmath.mpf(m.item()), mpmath.mpf(tau.item())))
    of_value, of_slope = ROUNDING[dtype]
    assert value == pytest.approx(true, rel=of_value, abs=of_value)
    # A slope is read from differences of size tau + m, hence rounds with them.
    assert slope == pytest.approx(true_slope, rel=of_slope, abs=of_slope)


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("chance", [tails.gaussian, tails.laplace])
def test_chances_are_no_more_than_one_and_slopes_stay_finite(chance, dtype):
    scale = torch.logspace(-30, 18, 49, dtype=dtype)
    m = torch.cat([torch.zeros(1, dtype=dtype), scale])
    value, slope = chance(m[:, None], scale)
    assert (value <= 0).all()
    assert value.isfinite().all()
    assert slope.isfinite().all()
    assert (slope <= 0).all(), "farther away is never more probable"
    assert (slope[0] == 0).all(), "the middle is the most probable"
