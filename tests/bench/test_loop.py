"""The usual loop is the engine's attack: else their times could not be compared."""

import pytest
import torch

import gradleak as gl
from gradleak.bench import cases
from gradleak.bench.loop import usual_loop


@pytest.mark.parametrize("belief", cases.BELIEFS)
def test_the_loops_slope_is_the_engines_up_to_the_beliefs_scale(belief, monkeypatch):
    images, adam = [], torch.optim.Adam
    monkeypatch.setattr(torch.optim, "Adam", lambda x, lr: images.extend(x) or adam(x, lr=lr))
    view = cases.released(("cnn", (1, 8, 8), 2), torch.device("cpu"))
    start = torch.rand(1, 1, 8, 8)
    usual_loop(view, belief, gl.Flat(), start)()
    held = cases.BELIEFS[belief](view.client).client
    slope = held.slope(view.g.rows(slice(0, 1)), start, view.y[:1])
    cosine = torch.cosine_similarity(images[0].grad.flatten(), -slope.flatten(), 0)
    assert cosine > 0.9999
    assert (images[0] - start).abs().max() <= 0.1 + 1e-6  # Adam's first step is its rate
