"""The chance that an entry is small, log P(|entry| < bound), far into the tails.

Entries and bounds are standardised: m = |centre| / scale >= 0 and tau = bound / scale > 0, tensors
that broadcast. Each function gives the log chance and its derivative in m, both finite wherever m^2
is: differences of distribution functions are made so that nothing cancels.
"""

import math

import torch
from torch import Tensor

FAR = 8.0  # deviations beyond the bound; from here on a chance is its density times a Mills ratio
HALF = math.sqrt(0.5)


def gaussian(m: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
    """log(Phi(tau - m) - Phi(-tau - m)) for standard Gaussian noise around m, and its slope."""
    m, tau = torch.broadcast_tensors(m, tau)
    beyond, drop = m - tau, torch.expm1(-2 * m * tau)  # phi(m + tau) / phi(m - tau) - 1
    chance = (torch.erfc(HALF * beyond) - torch.erfc(HALF * (m + tau))) / 2
    log_chance = chance.log()
    slope = drop * (-0.5 * beyond.square() - _LOG_ROOT).exp() / chance
    # A narrow window cancels: its density is a constant times exp(-m u - u^2 / 2), by its series.
    narrow = tau * (1 + m) < torch.finfo(m.dtype).eps ** 0.2
    series = (2 * tau).log() - _LOG_ROOT - m.square() / 2 + ((m * tau).square() - tau.square()) / 6
    log_chance = torch.where(narrow, series, log_chance)
    slope = torch.where(narrow, m * (tau.square() / 3 - 1), slope)
    far = (beyond > FAR) & ~narrow
    if far.any():  # seldom, and a scaled error function takes twenty times as long
        near, end = beyond[far], (m + tau)[far]
        ratio = _mills(near) - (1 + drop[far]) * _mills(end)
        log_chance[far] = ratio.log() - near.square() / 2 - _LOG_ROOT
        slope[far] = drop[far] / ratio
    return log_chance, slope


def laplace(m: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
    """The same for Laplace noise: 1 - exp(-tau) cosh m inside, exp(-m) sinh tau outside."""
    above, below = (m - tau).clamp_max(0), -m - tau
    inside = -(torch.expm1(above) + torch.expm1(below)) / 2
    outside = tau - m + (-torch.expm1(-2 * tau)).log() - math.log(2)
    within = m < tau
    slope = above.exp() * torch.expm1(-2 * m) / (2 * inside)
    return torch.where(within, inside.log(), outside), torch.where(within, slope, -1.0)


_LOG_ROOT = 0.5 * math.log(2 * math.pi)


def _mills(x: Tensor) -> Tensor:
    """(1 - Phi(x)) / phi(x)."""
    return math.sqrt(math.pi / 2) * torch.special.erfcx(HALF * x)
