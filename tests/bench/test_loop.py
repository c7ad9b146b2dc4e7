"""The usual loop is the engine's attack: else their times could not be compared."""

import pytest
import torch

import gradleak as gl
from gradleak.bench import cases
from gradleak.bench.loop import usual_loop

CPU = torch.device("cpu")


@pytest.mark.parametrize("belief", cases.BELIEFS)
@pytest.mark.parametrize("batch", [None, 3])
def test_the_loop_climbs_as_the_engine_does(belief, batch):
    """After twelve steps of Adam, whose directions know no scale; signs tell each pixel's."""
    view = cases.released(("cnn", (1, 8, 8), 2, batch), CPU)[:1]
    for signed in (False, True):
        adam = gl.Adam(steps=12, lr=0.02, decay=0.9, signed=signed)
        attack = cases.BELIEFS[belief](view.client, gl.Box(), optimizer=adam)
        start = torch.rand(1, *view.shape, generator=gl.randomness.generator(
            gl.randomness.START, 0, *view.key, 0))  # fmt: skip
        x, step = usual_loop(view, belief, gl.Box(), start, adam)
        for count in range(adam.steps):
            step(count)
        apart = (x - attack.attack(view).x).abs()
        assert apart.median() < 1e-4
        assert (apart < 0.01).float().mean() > 0.97  # a slope of zero has any sign
        assert (x - start).abs().max() > 0.02
