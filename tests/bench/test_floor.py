"""The least arithmetic of an attack, by hand."""

import pytest
from torch import nn

from gradleak import models
from gradleak.bench import floor


@pytest.mark.parametrize(
    ("model", "shape", "least"),
    [
        # forward 2 x 3 x 4 = 24 operations and 2 x 4 x 2 = 16; the first layer counts 5 times
        (nn.Sequential(nn.Flatten(), nn.Linear(3, 4), nn.Linear(4, 2)), (1, 1, 3), 5 * 24 + 7 * 16),
        # 3 x 3 places, 4 weights each
        (nn.Sequential(nn.Conv2d(1, 1, 2)), (1, 4, 4), 5 * 2 * 9 * 4),
    ],
)
def test_least_arithmetic_by_hand(model, shape, least):
    assert floor.least_flops(model, shape) == least


def test_arithmetic_of_the_papers_networks():
    """Counted by hand for the three networks: 57, 81 and 191 million operations."""
    for build, shape, million in (
        (models.cnn, (1, 28, 28), 57),
        (models.cnn, (3, 32, 32), 81),
        (models.convbig, (3, 32, 32), 191),
    ):
        assert floor.least_flops(build(shape, 10), shape) / 1e6 == pytest.approx(million, abs=0.6)
