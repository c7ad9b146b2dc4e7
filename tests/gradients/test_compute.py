"""The gradients of many attacks at once, against autograd one attack at a time."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import gradleak as gl


def network(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*layers).double()


def loop(model, x, y, loss=F.cross_entropy):
    """The oracle: one attack at a time with autograd, as it is usually written."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [torch.autograd.grad(loss(model(a), b), parameters) for a, b in zip(x, y, strict=True)]


@settings(max_examples=25)
@given(
    attacks=st.integers(1, 4),
    batch=st.integers(1, 3),
    channels=st.integers(1, 3),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    bias=st.booleans(),
)
def test_equals_a_loop_over_attacks(attacks, batch, channels, kernel, stride, padding, bias):
    conv = nn.Conv2d(channels, 2, kernel, stride, padding, bias=bias)
    model = network(conv, nn.Tanh(), nn.Flatten(), nn.LazyLinear(3, bias=bias))
    x = torch.rand(attacks, batch, channels, 6, 5, dtype=torch.double)
    y = torch.randint(3, (attacks, batch))
    model(x[0])  # gives the lazy layer its size
    g = gl.gradient(model, x, y)
    for n, expected in enumerate(loop(model, x, y)):
        for value, oracle in zip(g.values(), expected, strict=True):
            torch.testing.assert_close(value[n], oracle)


def test_is_differentiable_in_x():
    model = network(nn.Flatten(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    y = torch.tensor([[0], [1]])
    x = torch.rand(2, 1, 4, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: gl.gradient(model, x, y).sq_norm(), x)


def test_frozen_parameters_release_nothing():
    model = network(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    model[0].requires_grad_(False)
    g = gl.gradient(model, torch.rand(2, 1, 4).double(), torch.tensor([[0], [1]]))
    assert list(g) == ["2.weight", "2.bias"]


def test_takes_a_loss_of_ones_own():
    def squared(output, y):
        return (output - y).square().mean()

    model = network(nn.Linear(4, 2))
    x, y = torch.rand(3, 2, 4).double(), torch.rand(3, 2, 2).double()
    g = gl.gradient(model, x, y, squared)
    for n, (weight, bias) in enumerate(loop(model, x, y, squared)):
        torch.testing.assert_close(g["0.weight"][n], weight)
        torch.testing.assert_close(g["0.bias"][n], bias)
