"""Sums over entries, and their slopes, from factors and from tensors."""

import pytest
import torch

import gradleak as gl
from gradleak.gradients import entrywise


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("cached", [1, 48, 10**6])
def test_entrywise_distance_has_the_tensors_slope(masked, cached, monkeypatch):
    monkeypatch.setitem(gl.device.chunks.CACHED, "cpu", cached)
    delta = torch.randn(6, 2, 3, dtype=torch.double, requires_grad=True)
    a = torch.randn(6, 2, 4, dtype=torch.double, requires_grad=True)
    g = torch.randn(3, 3, 4, dtype=torch.double)
    mask = (torch.rand(3, 4) > 0.5).double() if masked else torch.ones(3, 4)
    factors = gl.gradients.Outer(delta, a, mask if masked else None)
    dense = torch.einsum("nko,nki->noi", delta, a) * mask - g.repeat_interleave(2, 0)
    expected = dense.abs().flatten(1).sum(1)
    found = factors.entrywise(gl.gradients.entrywise.absolute, g)
    torch.testing.assert_close(found, expected)
    weights = torch.rand(6, dtype=torch.double)
    for ours, theirs in zip(
        torch.autograd.grad((weights * found).sum(), (delta, a)),
        torch.autograd.grad((weights * expected).sum(), (delta, a)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("term", [entrywise.absolute, entrywise.square])
def test_sums_over_tensors_have_autograds_slope(term):
    h = torch.randn(6, 3, 4, dtype=torch.double, requires_grad=True)
    g = torch.randn(2, 3, 4, dtype=torch.double)  # each shared by three attacks
    apart = g.repeat_interleave(3, 0) - h
    expected = {entrywise.absolute: apart.abs(), entrywise.square: apart.square()}[term].sum((1, 2))
    found = entrywise.of_tensor(term, h, g)
    torch.testing.assert_close(found, expected)
    weights = torch.rand(6, dtype=torch.double)
    torch.testing.assert_close(*(torch.autograd.grad(v, h, weights)[0] for v in (found, expected)))
