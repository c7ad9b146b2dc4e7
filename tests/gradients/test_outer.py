"""A gradient kept as factors stands for the tensor that they make up."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gradleak as gl


@settings(max_examples=25)
@given(
    released=st.integers(1, 3),
    each=st.integers(1, 3),
    uses=st.integers(1, 3),
    out=st.integers(1, 4),
    inputs=st.integers(1, 5),
    seed=st.integers(0, 99),
    masked=st.sampled_from(["not", "shared", "own", "columns"]),
)
def test_factors_stand_for_the_tensor(released, each, uses, out, inputs, seed, masked):
    """Every operation on factors equals that on the tensor, also with shared observations."""
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.double)

    n = released * each
    factors = 0.7 * gl.gradients.Outer(draw(n, uses, out), draw(n, uses, inputs))
    loc = gl.Gradient({"w": factors, "b": draw(n, out)})
    g = gl.Gradient({"w": draw(released, out, inputs), "b": draw(released, out)})
    wide = gl.Gradient({k: v.repeat_interleave(each, 0) for k, v in g.items()})
    if masked != "not":
        lead = () if masked == "shared" else (released,)
        rows = (1, inputs) if masked == "columns" else (out, inputs)
        mask = {"w": (draw(*lead, *rows) > 0).double(), "b": (draw(*lead, out) > 0).double()}
        loc = loc.masked(mask)
        own = mask["w"] if masked == "shared" else mask["w"].repeat_interleave(each, 0)
        torch.testing.assert_close(loc["w"], factors.dense() * own)
    oracle = loc.dense()
    torch.testing.assert_close(loc.moments(g), oracle.moments(wide))
    torch.testing.assert_close(loc.sq_norm(), oracle.sq_norm())
    torch.testing.assert_close(loc.sq_distance(g), oracle.sq_distance(wide))
    torch.testing.assert_close(loc.abs_distance(g), oracle.abs_distance(wide))
    torch.testing.assert_close(loc.moments(g), oracle.moments(g))
    assert (loc.attacks, loc.size) == (n, out * inputs + out)


@pytest.mark.parametrize("cached", [1, 48, 10**6])
@pytest.mark.parametrize("uses", [1, 2])
def test_moments_of_factors_have_the_tensors_slope(uses, cached, monkeypatch):
    monkeypatch.setitem(gl.device.chunks.CACHED, "cpu", cached)
    delta = torch.randn(6, uses, 3, dtype=torch.double, requires_grad=True)
    a = torch.randn(6, uses, 4, dtype=torch.double, requires_grad=True)
    g = torch.randn(3, 3, 4, dtype=torch.double)
    dense = torch.einsum("nko,nki->noi", delta, a)
    inner = (dense * g.repeat_interleave(2, 0)).sum((1, 2))
    expected = torch.stack([inner, dense.square().sum((1, 2))])
    found = torch.stack(gl.gradients.Outer(delta, a).moments(g))
    torch.testing.assert_close(found, expected)
    weights = torch.rand(2, 6, dtype=torch.double)
    ours, theirs = (torch.autograd.grad(v, (delta, a), weights) for v in (found, expected))
    torch.testing.assert_close(ours, theirs)
