"""Beliefs about a gradient, all of them, against a loop."""

import pytest
import torch
import torch.nn.functional as F

import gradleak as gl

DEFENSES = [
    gl.GaussianNoise(0.1),
    gl.LaplaceNoise(0.1),
    gl.RandomMask(0.5, then=gl.GaussianNoise(0.1)),
    gl.RandomMask(0.5, then=gl.LaplaceNoise(0.1)),
]
BELIEFS = [
    gl.Direction(10.0),
    gl.LayerWeights((1.0, 0.5, 2.0, 0.3), then=gl.GaussianNoise(0.1)),
    gl.LayerWeights((1.0, 0.5, 2.0, 0.3), then=gl.Direction(5.0)),
    gl.LayerWeights((1.0, 0.5, 2.0, 0.3), then=gl.RandomMask(0.5, then=gl.GaussianNoise(0.1))),
    gl.LayerDirections(5.0),
    gl.UnknownMask(0.5, then=gl.GaussianNoise(0.1)),
    gl.UnknownMask(0.3, then=gl.LaplaceNoise(0.1)),
    gl.Uninformative(),
]


@pytest.mark.parametrize("belief", [*DEFENSES, *BELIEFS], ids=repr)
def test_every_belief_equals_a_loop_over_single_attacks(belief):
    """Value and slope of log p(g | x) in float64, against autograd one attack at a time."""
    model = gl.models.cnn((1, 8, 8), 10).double()
    x, y = gl.data.batch("digits", range(4))
    view = gl.Client(model, DEFENSES[2]).release(x[:2], y[:2])
    starts = torch.rand(4, 1, 8, 8, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    labels = view.y.repeat_interleave(2)
    z = starts.clone().requires_grad_()
    together = gl.Client(model, belief).log_prob(view.g, z, labels)
    (slope,) = torch.autograd.grad(together.sum(), z)
    names = [name for name, _ in model.named_parameters()]
    for n in range(4):
        one = starts[n : n + 1].clone().requires_grad_()
        loss = F.cross_entropy(model(one), labels[n : n + 1])
        parts = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
        loc = gl.Gradient({k: v.unsqueeze(0) for k, v in zip(names, parts, strict=True)})
        value = belief(loc).log_prob(view.g.rows(slice(n // 2, n // 2 + 1)))
        (alone,) = torch.autograd.grad(value.sum(), one)
        torch.testing.assert_close(together[n : n + 1], value, rtol=1e-8, atol=1e-8)
        scale = alone.abs().max()
        torch.testing.assert_close(slope[n : n + 1], alone, rtol=1e-7, atol=1e-8 * float(scale))
