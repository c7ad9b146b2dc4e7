"""The U-Net before any training, what its outputs depend on, and fits where the best is known."""

import math

import pytest
import torch
from torch import nn

from gradleak.priors.networks import UNet, fit, log_uniform, waves


@pytest.fixture
def network():
    made = UNet(2, 3, told=8, width=4)
    nn.init.normal_(made.last[2].weight)
    return made


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
def test_it_is_zero_before_training_for_images_of_any_size(size):
    x, facts = torch.rand(2, 2, *size), waves(torch.rand(2))
    network = UNet(2, 3, told=8, width=4)
    bias = network.last[2].bias.view(1, 3, 1, 1)
    torch.testing.assert_close(network(x, facts), bias.expand(2, 3, *size), rtol=0.01, atol=1e-3)


def test_an_output_depends_on_its_own_image_and_facts_only(network):
    x, facts = torch.rand(3, 2, 8, 8), waves(torch.tensor([0.1, 0.5, 1.0]))
    before = network(x, facts)
    x[1] += 1
    facts[2] += 1
    after = network(x, facts)
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1])
    assert not torch.allclose(before[2], after[2])


def test_waves_are_sines_and_cosines_of_the_logarithm():
    level = 0.3
    angles = [math.log(level) / 4 * math.pi * f for f in (0.5, 1, 2, 4)]
    expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    torch.testing.assert_close(waves(torch.tensor([level]))[0], torch.tensor(expected))


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
