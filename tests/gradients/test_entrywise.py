"""Sums over entries, and their slopes, from factors and from tensors."""

import pytest
import torch

import gradleak as gl
from gradleak.gradients import entrywise


@pytest.mark.parametrize("masked", [(), (3, 4), (3, 3, 4)])
@pytest.mark.parametrize("cached", [1, 16, 48, 10**6])
def test_entrywise_distance_has_the_tensors_slope(masked, cached, monkeypatch):
    monkeypatch.setitem(gl.device.chunks.CACHED, "cpu", cached)
    delta = torch.randn(6, 2, 3, dtype=torch.double, requires_grad=True)
    a = torch.randn(6, 2, 4, dtype=torch.double, requires_grad=True)
    g = torch.randn(3, 3, 4, dtype=torch.double)
    mask = (torch.rand(masked) > 0.5).double()
    factors = gl.gradients.Outer(delta, a, mask if masked else None)
    own = mask.repeat_interleave(2, 0) if mask.ndim == 3 else mask if masked else 1
    dense = torch.einsum("nko,nki->noi", delta, a) * own - g.repeat_interleave(2, 0)
    expected = dense.abs().flatten(1).sum(1)
    found = factors.entrywise(gl.gradients.entrywise.absolute, g)
    torch.testing.assert_close(found, expected)
    weights = torch.rand(6, dtype=torch.double)
    exact = factors.exactly()
    torch.testing.assert_close(exact.entrywise(gl.gradients.entrywise.absolute, g), expected)
    moments = exact.moments(g * mask if masked else g) if mask.ndim < 3 else None
    whole = dense + g.repeat_interleave(2, 0)
    if moments:
        inner = (whole * g.repeat_interleave(2, 0)).sum((1, 2))
        torch.testing.assert_close(moments[0], inner)
    torch.testing.assert_close(exact.sq_norm(), whole.square().sum((1, 2)))
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


def test_slopes_have_no_slopes_of_their_own():
    delta, a, h = (torch.randn(2, 1, 3, requires_grad=True) for _ in range(3))
    g = torch.randn(2, 3, 3)
    for found, of in (
        (entrywise.of_factors(entrywise.square, delta, a, None, g), delta),
        (entrywise.of_tensor(entrywise.square, h, torch.randn(2, 1, 3)), h),
    ):
        weights = torch.rand(2, requires_grad=True)
        (slope,) = torch.autograd.grad((weights * found).sum(), of, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            slope.sum().backward()


def test_exact_factors_tell_gradients_apart_that_nearly_agree():
    """Where |h - g|^2 is 1e-10 of |g|^2, factors in float32 know nothing of it."""
    delta, a = torch.randn(1, 1, 40), torch.randn(1, 1, 300)
    factors = gl.gradients.Outer(delta, a)
    g = factors.dense() + 1e-5 * torch.randn(1, 40, 300)
    expected = (g.double() - factors.dense().double()).square().sum((1, 2))
    held = gl.Gradient({"w": g})
    found = gl.Gradient({"w": factors.exactly()}).sq_distance(held).double()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
    assert (gl.Gradient({"w": factors}).sq_distance(held).double() / expected - 1).abs() > 0.01
