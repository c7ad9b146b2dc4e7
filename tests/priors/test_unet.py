"""The U-Net: what it is before any training, and what its outputs depend on."""

import math

import pytest
import torch
from torch import nn

from gradleak.priors.unet import UNet, waves


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
