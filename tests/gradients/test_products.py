"""What is quadratic in a gradient."""

import torch

import gradleak as gl
from gradleak.gradients import products


def test_moments_of_tensors_can_be_differentiated_twice():
    h = [torch.randn(4, *s, dtype=torch.double, requires_grad=True) for s in ((2, 3), (2,))]
    g = [torch.randn(2, *s, dtype=torch.double) for s in ((2, 3), (2,))]

    def f(*h):
        return gl.gradients.products.of_tensors(h, g)

    assert torch.autograd.gradcheck(f, h)
    assert torch.autograd.gradgradcheck(f, h)


def test_moments_of_tensors_are_those_of_the_flat_vector():
    h = [torch.randn(6, 2, 3), torch.randn(6, 4)]
    g = [torch.randn(2, 2, 3), torch.randn(2, 4)]
    flat = torch.cat([v.flatten(1) for v in h], 1)
    released = torch.cat([v.flatten(1) for v in g], 1).repeat_interleave(3, 0)
    inner, sq_norm = products.of_tensors(h, g)
    torch.testing.assert_close(inner, (flat * released).sum(1))
    torch.testing.assert_close(sq_norm, flat.square().sum(1))


def test_a_parameter_that_is_one_number_counts():
    """The moments and distances of (N,) beside (N, 3), by hand."""
    h, g = (gl.Gradient({"scale": torch.randn(4), "bias": torch.randn(4, 3)}) for _ in range(2))
    a, b = (torch.cat([v["scale"][:, None], v["bias"]], 1) for v in (h, g))
    inner, norm = h.moments(g)
    torch.testing.assert_close(inner, (a * b).sum(1))
    torch.testing.assert_close(norm, (a * a).sum(1))
    torch.testing.assert_close(h.sq_norm(), (a * a).sum(1))
    torch.testing.assert_close(h.sq_distance(g), (a - b).square().sum(1))
    torch.testing.assert_close(h.abs_distance(g), (a - b).abs().sum(1))
