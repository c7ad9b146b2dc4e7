"""Operations on gradients, against those on the flat vector of all entries."""

import pytest
import torch

import gradleak as gl


@pytest.fixture
def pair():
    rng = torch.Generator().manual_seed(3)

    def draw():
        return gl.Gradient(
            {k: torch.randn(4, *s, generator=rng) for k, s in {"a.w": (2, 3), "b.w": (5,)}.items()}
        )

    return draw(), draw()


def flat(g):
    return torch.cat([v.flatten(1) for v in g.values()], 1)


def test_operations_are_those_of_the_flat_vector(pair):
    g, h = pair
    a, b = flat(g), flat(h)
    torch.testing.assert_close(g.moments(h), ((a * b).sum(1), a.square().sum(1)))
    torch.testing.assert_close(g.sq_norm(), a.square().sum(1))
    torch.testing.assert_close(g.sq_distance(h), (a - b).square().sum(1))
    torch.testing.assert_close(g.abs_distance(h), (a - b).abs().sum(1))
    torch.testing.assert_close(flat(g.rows(slice(1, 3))), a[1:3])
    assert (g.attacks, g.size, g.layers) == (4, 11, ["a", "b"])


def test_masks_hide_and_names_leave_out(pair):
    g, h = pair
    mask = {"a.w": torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])}
    hidden = g.masked(mask)
    torch.testing.assert_close(hidden["a.w"], g["a.w"] * mask["a.w"])
    assert torch.equal(hidden["b.w"], g["b.w"])
    assert torch.equal(hidden.nonzero(["a"])["a.w"], mask["a.w"].expand(4, 2, 3))
    torch.testing.assert_close(g.without(["a"]).sq_norm(), g["b.w"].square().sum(1))
    torch.testing.assert_close(g.only("b.w").sq_distance(h), (g["b.w"] - h["b.w"]).square().sum(1))
    torch.testing.assert_close(flat(g.scaled({"a.w": 2.0, "b.w": -1.0}))[:, :6], 2 * flat(g)[:, :6])
    with pytest.raises(ValueError, match=r"no parameter or layer is named c; the layers are a, b"):
        g.without(["c"])
    with pytest.raises(ValueError, match=r"mask names c.w; the parameters are a.w, b.w"):
        g.masked({**mask, "c.w": mask["a.w"]})
