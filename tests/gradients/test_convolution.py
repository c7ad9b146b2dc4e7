"""The hand-written derivatives of a convolution, against PyTorch's own."""

from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gradleak.gradients import convolution, vjps

PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=40)
@given(
    channels=st.sampled_from([1, 3, 9]),
    many=st.sampled_from([1, convolution.MANY]),
    kernel=PAIR,
    stride=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    last=st.booleans(),
)
def test_derivatives_are_torchs(channels, many, kernel, stride, dilation, padding, last):
    with patch.object(convolution, "MANY", many):
        check(channels, kernel, stride, dilation, padding, last)


def check(channels, kernel, stride, dilation, padding, last):
    layer = nn.Conv2d(channels, 2, kernel, stride, padding, dilation).double()
    a = torch.rand(3, channels, 7, 6, dtype=torch.double)
    a = a.contiguous(memory_format=torch.channels_last) if last else a
    a.requires_grad_()
    z = layer(a)
    delta = torch.rand_like(z, requires_grad=True)
    weight = layer.weight.detach().requires_grad_()
    one_by_one = [
        torch.nn.grad.conv2d_weight(a[[n]], weight.shape, delta[[n]], stride, padding, dilation)
        for n in range(3)
    ]
    expected = torch.stack(one_by_one), delta.sum((2, 3))
    found = convolution.gradients(layer, a, delta)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)

    # to a and to delta, of any function of them
    slopes = [torch.rand_like(v) for v in expected]
    found, expected = (torch.autograd.grad(v, (a, delta), slopes) for v in (found, expected))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)

    again = vjps.output(layer, a, z)
    assert torch.equal(again, z)
    (ours,) = torch.autograd.grad(again, a, delta, create_graph=True)
    (theirs,) = torch.autograd.grad(z, a, delta, create_graph=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    back = torch.rand_like(a)
    torch.testing.assert_close(
        torch.autograd.grad(ours, delta, back)[0], torch.autograd.grad(theirs, delta, back)[0]
    )


@pytest.mark.parametrize(("channels", "many"), [(1, 64), (9, 64), (9, 1)])
def test_gradients_can_be_differentiated_twice(channels, many, monkeypatch):
    monkeypatch.setattr(convolution, "MANY", many)
    layer = nn.Conv2d(channels, 2, 2).double()
    a = torch.rand(2, channels, 3, 3, dtype=torch.double, requires_grad=True)
    delta = torch.rand(2, 2, 2, 2, dtype=torch.double, requires_grad=True)

    def f(a, delta):
        return convolution.gradients(layer, a, delta)

    assert torch.autograd.gradcheck(f, (a, delta))
    assert torch.autograd.gradgradcheck(f, (a, delta))
