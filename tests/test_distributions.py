import numpy as np
import pytest
import scipy.stats
import torch

import gradleak as gl

SHAPES = {"a.weight": (3, 2), "a.bias": (3,)}


def gradients(attacks: int, seed: int = 0) -> gl.Gradient:
    rng = torch.Generator().manual_seed(seed)
    return gl.Gradient(
        {k: torch.randn(attacks, *s, generator=rng, dtype=torch.double) for k, s in SHAPES.items()}
    )


def flat(g: gl.Gradient) -> np.ndarray:
    return torch.cat([v.flatten(1) for v in g.values()], 1).numpy()


@pytest.mark.parametrize(
    ("kind", "oracle"), [(gl.Normal, scipy.stats.norm), (gl.Laplace, scipy.stats.laplace)]
)
def test_log_density_is_scipys(kind, oracle):
    loc, g = gradients(4), gradients(4, seed=1)
    scale = torch.tensor([0.1, 0.5, 1.0, 3.0], dtype=torch.double)
    expected = oracle.logpdf(flat(g), flat(loc), scale[:, None]).sum(1)
    np.testing.assert_allclose(kind(loc, scale).log_prob(g), expected, rtol=1e-12)
    one = kind(loc, 0.5).log_prob(g)[1]
    np.testing.assert_allclose(one, expected[1], rtol=1e-12)


@pytest.mark.parametrize(
    ("kind", "oracle"), [(gl.Normal, scipy.stats.norm), (gl.Laplace, scipy.stats.laplace)]
)
def test_samples_have_the_law_they_claim(kind, oracle):
    loc = gl.Gradient({"w": torch.full((2, 20_000), 0.3)})
    g = kind(loc, torch.tensor([0.1, 2.0])).sample([(0,), (1,)])
    for values, scale in zip(g["w"], (0.1, 2.0), strict=True):
        assert scipy.stats.kstest(values, oracle(0.3, scale).cdf).pvalue > 1e-3


def test_noise_belongs_to_its_key_and_not_to_its_place():
    loc = gradients(3)
    noise = gl.Normal(loc, 1.0).sample([(5,), (6,), (7,)])
    other = gl.Normal(loc.rows(torch.tensor([2, 0])), 1.0).sample([(7,), (5,)])
    for name in SHAPES:
        assert torch.equal(noise[name][2], other[name][0])
        assert torch.equal(noise[name][0], other[name][1])
        assert not torch.equal(noise[name][0] - loc[name][0], noise[name][1] - loc[name][1])


def test_parameters_of_one_shape_get_different_noise():
    loc = gl.Gradient({"a": torch.zeros(1, 8), "b": torch.zeros(1, 8)})
    g = gl.Normal(loc, 1.0).sample([(0,)])
    assert not torch.equal(g["a"], g["b"])


def test_a_point_mass_has_no_density_and_names_the_cure():
    loc = gradients(1)
    with pytest.raises(NotImplementedError, match=r"GaussianNoise|Direction"):
        gl.PointMass(loc).log_prob(loc)


def test_every_gradient_needs_its_key():
    with pytest.raises(ValueError, match="3 gradients but 1 random keys"):
        gl.Normal(gradients(3), 1.0).sample([(0,)])
