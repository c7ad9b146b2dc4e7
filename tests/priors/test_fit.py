"""Fitting by descent, where the best fit is known."""

import math

import torch
from torch import nn

from gradleak.priors.fit import fit, log_uniform


def test_it_finds_the_least_squares_solution():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(200, 3, generator=rng, dtype=torch.double)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]]).double() + 0.3
    y += 0.1 * torch.randn(y.shape, generator=rng, dtype=torch.double)
    model = nn.Linear(3, 1).double()
    found = fit(model, lambda m: (m(x) - y).square().mean(), 600, 0.05, "line")
    best = torch.linalg.lstsq(torch.cat([x, torch.ones(200, 1).double()], 1), y).solution
    torch.testing.assert_close(found.weight[0], best[:3, 0], rtol=0, atol=5e-3)
    torch.testing.assert_close(found.bias, best[3], rtol=0, atol=5e-3)
    assert not any(p.requires_grad for p in found.parameters())


def test_levels_are_spread_evenly_over_factors():
    levels = log_uniform(0.01, 2.0, 4000, torch.Generator().manual_seed(0))
    assert levels.min() >= 0.01
    assert levels.max() <= 2.0
    share = (levels.log() - math.log(0.01)) / math.log(200)
    counts = torch.histc(share, 10, 0, 1)
    assert (counts - 400).abs().max() < 5 * math.sqrt(400)
