"""Layers with a leaner derivative have the derivative that PyTorch gives them."""

import pytest
import torch
from torch import nn

from gradleak.gradients import vjps


def agree(ours, theirs, a):
    """The same derivative, and the same transpose of it."""
    slope = torch.randn_like(ours, requires_grad=True)
    found = [torch.autograd.grad(z, a, slope, create_graph=True)[0] for z in (ours, theirs)]
    torch.testing.assert_close(*found)
    back = torch.randn_like(a)
    torch.testing.assert_close(*(torch.autograd.grad(z, slope, back)[0] for z in found))


@pytest.mark.parametrize(
    "layer", [nn.ReLU(), nn.AvgPool2d(2), nn.AvgPool2d((2, 1), padding=(1, 0), ceil_mode=True)]
)
def test_lean_layers_have_torchs_derivatives(layer):
    a = torch.randn(2, 3, 5, 4, dtype=torch.double, requires_grad=True)
    z = layer(a)
    lean = vjps.output(layer, a, z)
    assert torch.equal(lean, z)
    agree(lean, z, a)


@pytest.mark.parametrize("branches", [False, True])
def test_a_pooling_takes_the_relu_before_it_along(branches):
    a = torch.randn(2, 3, 4, 4, dtype=torch.double, requires_grad=True)
    relu, pool = nn.ReLU(), nn.AvgPool2d(2)

    def of(output):
        opened = output(relu, a, relu(a))
        pooled = output(pool, opened, pool(opened))
        return pooled + opened[:, :, ::2, ::2].square() if branches else pooled

    agree(of(vjps.output), of(lambda layer, a, z: z), a)


def test_layers_without_a_rewiring_are_left_alone():
    a = torch.randn(2, 3, 4, 4, requires_grad=True)
    for layer in (nn.Tanh(), nn.ReLU(inplace=True), nn.AvgPool2d(2, divisor_override=3)):
        z = layer(a + 0)
        assert vjps.output(layer, a, z) is z


def test_a_normalisation_by_fixed_statistics_is_a_scaling():
    norm = nn.BatchNorm2d(3).double().eval()
    nn.init.normal_(norm.weight)
    norm.running_var.copy_(torch.tensor([0.5, 1.0, 2.0]))
    a = torch.randn(2, 3, 4, 4, dtype=torch.double, requires_grad=True)
    z = norm(a)
    slope = torch.randn_like(z)
    ours, theirs = (torch.autograd.grad(v, a, slope)[0] for v in (vjps.output(norm, a, z), z))
    torch.testing.assert_close(ours, theirs)
    assert not vjps.fixed_norm(norm.train())
