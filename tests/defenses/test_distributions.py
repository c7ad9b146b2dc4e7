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


NOISES = [(gl.GaussianNoise, scipy.stats.norm), (gl.LaplaceNoise, scipy.stats.laplace)]


@pytest.mark.parametrize(("noise", "oracle"), NOISES)
def test_an_unknown_mask_is_a_mixture_of_two(noise, oracle):
    loc, g = gradients(4), gradients(4, seed=1)
    scale = torch.tensor([0.1, 0.5, 1.0, 3.0], dtype=torch.double)
    kept = oracle.logpdf(flat(g), flat(loc), scale[:, None])
    hidden = oracle.logpdf(flat(g), 0, scale[:, None])
    expected = np.logaddexp(np.log(0.7) + kept, np.log(0.3) + hidden).sum(1)
    found = gl.UnknownMask(0.3, noise(scale))(loc).log_prob(g)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(("noise", "oracle"), NOISES)
def test_an_unknown_mask_draws_what_it_believes(noise, oracle):
    loc = gl.Gradient({"w": torch.full((1, 40_000), 2.0)})
    g = gl.UnknownMask(0.3, noise(0.5))(loc).sample([(0,)])

    def cdf(v):
        return 0.7 * oracle.cdf(v, 2.0, 0.5) + 0.3 * oracle.cdf(v, 0, 0.5)

    assert scipy.stats.kstest(g["w"][0], cdf).pvalue > 1e-3


@pytest.mark.parametrize("noise", [gl.GaussianNoise, gl.LaplaceNoise])
def test_the_slope_of_a_mixture_is_that_of_its_value(noise):
    delta, a = (torch.randn(4, 1, n, dtype=torch.double, requires_grad=True) for n in (3, 2))
    bias = torch.randn(4, 3, dtype=torch.double, requires_grad=True)
    g = gl.Gradient({"w": torch.randn(2, 3, 2).double(), "b": torch.randn(2, 3).double()})
    belief = gl.UnknownMask(0.3, noise(torch.tensor([0.3, 0.5, 1.0, 2.0]).double()))

    def f(delta, a, bias):
        return belief(gl.Gradient({"w": gl.gradients.Outer(delta, a), "b": bias})).log_prob(g)

    assert torch.autograd.gradcheck(f, (delta, a, bias))


def test_bad_mixtures_are_refused():
    with pytest.raises(ValueError, match=r"in \(0, 1\), got 0"):
        gl.UnknownMask(0.0, gl.GaussianNoise(0.1))
    with pytest.raises(ValueError, match="a GaussianNoise or a LaplaceNoise, got NoDefense"):
        gl.UnknownMask(0.5, gl.NoDefense())


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
