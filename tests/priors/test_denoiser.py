"""The denoiser before any training, which is a closed form."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gradleak.priors import Denoiser


@settings(max_examples=20)
@given(level=st.floats(0.01, 2.0), deviation=st.floats(0.1, 0.5))
def test_untrained_it_is_the_best_linear_guess(level, deviation):
    """For pixels of mean 1/2 and that deviation: shrink towards the mean (Wiener's filter)."""
    model = Denoiser((1, 4, 4), deviation, width=4)
    nn.init.zeros_(model.last[2].bias)
    x = torch.rand(2, 1, 4, 4)
    shrunk = 0.5 + (x - 0.5) * deviation**2 / (deviation**2 + level**2)
    torch.testing.assert_close(model(x, torch.full((2,), level)), shrunk)
