import pytest
import torch
from torch import nn

import gradleak as gl
from gradleak.attacks import _running


class Reordered(nn.Module):
    """Registers its layers in another order than it runs them, one of them twice, one by name."""

    def __init__(self):
        super().__init__()
        self.head, self.middle, self.body = nn.Linear(6, 3), nn.Linear(6, 6), nn.Linear(5, 6)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return self.head(self.middle(self.middle(input=self.body(x).relu())))


def test_layers_are_told_in_the_order_in_which_they_run():
    net = Reordered()
    for batch in (None, 4):
        shape = (5,) if batch is None else (batch, 5)
        g = gl.Gradient({name: p[None] for name, p in net.named_parameters()})
        view = gl.ServerView(gl.Client(net, batch_size=batch), g, None, shape, (0,))
        once = _running.run(view)
        assert [call.name for call in once.calls] == ["body", "middle", "middle", "head"]
        assert once.x.shape == (batch or 1, 5)
        assert torch.equal(once.calls[0].a, once.x)
        assert torch.equal(once.calls[-1].z, once.output)
        torch.testing.assert_close(once.output, net(once.x))
        assert not net.body._forward_hooks
        assert torch.equal(_running.run(view).x, once.x)


def test_a_network_that_does_not_run_or_calls_no_layer_is_told():
    net = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2))
    g = gl.Gradient({name: p[None] for name, p in net.named_parameters()})
    view = gl.ServerView(gl.Client(net), g, None, (3,), (0,))
    with pytest.raises(ValueError, match=r"does not run on examples of shape \(3,\).*layer_input"):
        _running.run(view)
    assert not net[0]._forward_hooks

    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.held = nn.ParameterDict({"w": torch.ones(3, 2)})

        def forward(self, x):
            return x @ self.held["w"]

    g = gl.Gradient({"held.w": torch.ones(1, 3, 2)})
    with pytest.raises(ValueError, match="no layer with released parameters was called"):
        _running.run(gl.ServerView(gl.Client(Bare()), g, None, (3,), (0,)))
