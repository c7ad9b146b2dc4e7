import math

import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gradleak as gl

DEFENSES = [
    gl.GaussianNoise(0.3),
    gl.LaplaceNoise(0.3),
    gl.RandomMask(0.5, then=gl.GaussianNoise(0.3)),
    gl.RandomMask(0.5, then=gl.LaplaceNoise(0.3)),
    gl.LearnedNoise((0.2, 0.4)),
]
BELIEFS = [
    *DEFENSES,
    gl.GaussianNoise(0.1),
    gl.LaplaceNoise(1.0),
    gl.RandomMask(0.5, then=gl.GaussianNoise(0.3), seed=1),
    gl.LayerWeights((2.0, 0.5), then=gl.GaussianNoise(0.3)),
]


def gradient(attacks=1, seed=0, size=400):
    rng = torch.Generator().manual_seed(seed)
    shapes = {"a.weight": (size // 2, 2), "b.weight": (size,)}
    return gl.Gradient({k: torch.randn(attacks, *s, generator=rng) for k, s in shapes.items()})


@pytest.mark.parametrize("truth", DEFENSES, ids=repr)
@pytest.mark.parametrize("belief", BELIEFS, ids=repr)
def test_no_belief_beats_the_truth_on_average(truth, belief):
    """Gibbs' inequality: the expected log-likelihood is largest under the true density."""
    draws = 64
    one = gradient()
    true_gradient = one.map(lambda v: v.expand(draws, *v.shape[1:]))
    g = truth(true_gradient).sample([(k,) for k in range(draws)])
    gain = truth(true_gradient).log_prob(g) - belief(true_gradient).log_prob(g)
    error = gain.std().item() / math.sqrt(draws)
    assert gain.mean().item() >= -4 * error - 1e-2


@settings(max_examples=20)
@given(rate=st.floats(0, 0.99), seed=st.integers(0, 1000))
def test_a_mask_keeps_the_share_it_claims_and_is_always_the_same(rate, seed):
    g = gradient(size=4000)
    defense = gl.RandomMask(rate, then=gl.NoDefense(), seed=seed)
    released = defense(g).sample([(0,)])
    kept = torch.cat([(released[k] == g[k]).flatten() for k in g]).float().mean().item()
    spread = 5 * math.sqrt(rate * (1 - rate) / 8000)
    assert abs(kept - (1 - rate)) <= spread + 1e-12
    again = gl.RandomMask(rate, then=gl.NoDefense(), seed=seed)(g).sample([(9,)])
    assert all(torch.equal(released[k], again[k]) for k in g)


def test_masked_entries_carry_noise_but_nothing_of_x():
    defense = gl.RandomMask(0.5, then=gl.GaussianNoise(0.1))
    one, other = gradient(seed=1), gradient(seed=2)
    a, b = defense(one).sample([(0,)]), defense(other).sample([(0,)])
    for name, mask in defense.mask(one).items():
        hidden = mask == 0
        assert torch.equal(a[name][0][hidden], b[name][0][hidden])
        assert (a[name][0][hidden] != 0).all()


def test_layer_weights_are_a_change_of_noise():
    """Weight w on a layer is the belief that its noise is 1/w times as large."""
    loc, g = gradient(seed=1), gradient(seed=2)
    weighted = gl.LayerWeights((2.0, 0.5), then=gl.GaussianNoise(0.3))(loc).log_prob(g)
    parts = [
        gl.GaussianNoise(0.3 / w)(gl.Gradient({k: loc[k]})).log_prob(gl.Gradient({k: g[k]}))
        for k, w in zip(g, (2.0, 0.5), strict=True)
    ]
    torch.testing.assert_close(weighted, parts[0] + parts[1])


def test_learned_noise_is_gaussian_with_a_scale_for_each_parameter():
    loc, g = gradient(2, seed=1), gradient(2, seed=2)
    found = gl.LearnedNoise((0.2, 0.7))(loc).log_prob(g)
    expected = sum(
        scipy.stats.norm.logpdf(g[k].numpy(), loc[k].numpy(), s).reshape(2, -1).sum(1)
        for k, s in zip(g, (0.2, 0.7), strict=True)
    )
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-5)


@settings(max_examples=20)
@given(st.floats(1e-3, 10), st.floats(1e-2, 1e2), st.integers(0, 1000))
def test_learned_noise_is_as_strong_as_it_says_and_in_proportion(scale, larger, seed):
    g = gradient(3, seed)
    g = gl.Gradient({"a.weight": larger * g["a.weight"], "b.weight": g["b.weight"]})
    scales = gl.learned_noise(g, scale).scales
    sizes = [v[0].numel() for v in g.values()]
    square = sum(n * s**2 for n, s in zip(sizes, scales, strict=True)) / sum(sizes)
    assert square == pytest.approx(scale**2, rel=1e-3)
    roots = [v.square().mean().sqrt().item() for v in g.values()]
    assert scales[0] / scales[1] == pytest.approx(roots[0] / roots[1], rel=1e-3)


def test_learned_noise_needs_a_number_for_each_parameter():
    with pytest.raises(ValueError, match="1 scales for 2 parameters"):
        gl.LearnedNoise((0.1,))(gradient())
    for bad in ((0.1, 0.0), (0.1, math.inf), (0.1, torch.tensor(0.1))):
        with pytest.raises(ValueError, match="scales must be a tuple of numbers in"):
            gl.LearnedNoise(bad)
    with pytest.raises(ValueError, match="nothing can be learned"):
        gl.learned_noise(gradient().map(torch.zeros_like), 0.1)


def test_layer_weights_sample_what_they_believe():
    loc = gradient()
    belief = gl.LayerWeights((4.0, 1.0), then=gl.GaussianNoise(1.0))
    noise = belief(loc).sample([(0,)])
    spread = [(noise[k] - loc[k]).std().item() for k in loc]
    assert spread[0] == pytest.approx(0.25, rel=0.15)
    assert spread[1] == pytest.approx(1.0, rel=0.15)


def test_direction_is_the_cosine():
    loc, g = gradient(3, seed=1), gradient(3, seed=2)
    a, b = (torch.cat([v.flatten(1) for v in h.values()], 1) for h in (loc, g))
    expected = 7 * torch.cosine_similarity(a, b)
    torch.testing.assert_close(gl.Direction(7.0)(loc).log_prob(g), expected)
    scaled = gl.Direction(7.0)(loc.map(lambda v: 5 * v)).log_prob(g)
    torch.testing.assert_close(scaled, expected)


def test_layer_directions_add_the_cosines_of_all_parameters():
    loc, g = gradient(4, seed=0), gradient(4, seed=1)
    cosines = [torch.nn.functional.cosine_similarity(loc[k].flatten(1), g[k].flatten(1)) for k in g]
    found = gl.LayerDirections(7.0)(loc).log_prob(g)
    torch.testing.assert_close(found, 7.0 * torch.stack(cosines).sum(0))
    shared = gl.LayerDirections(7.0)(loc).log_prob(g.rows(slice(0, 2)))
    torch.testing.assert_close(shared[0], found[0])


def test_uninformative_says_nothing():
    loc = gradient().map(lambda v: v.requires_grad_())
    value = gl.Uninformative()(loc).log_prob(gradient(seed=1))
    value.sum().backward()
    assert value.item() == 0
    assert all((loc[k].grad == 0).all() for k in loc)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("kind", [gl.GaussianNoise, gl.LaplaceNoise, gl.Direction])
def test_scales_out_of_range_are_refused(kind, scale):
    with pytest.raises(ValueError, match="must be a number in"):
        kind(scale)


@pytest.mark.parametrize("rate", [-0.1, 1.0, math.nan])
def test_rates_out_of_range_are_refused(rate):
    with pytest.raises(ValueError, match=r"in \[0, 1\)"):
        gl.RandomMask(rate, then=gl.NoDefense())


def test_layer_weights_must_fit_the_network():
    with pytest.raises(ValueError, match="3 layer weights for 2 layers: a, b"):
        gl.LayerWeights((1.0, 1.0, 1.0), then=gl.GaussianNoise(1.0))(gradient())
    with pytest.raises(ValueError, match="weights must be a tuple of numbers in"):
        gl.LayerWeights((1.0, 0.0), then=gl.GaussianNoise(1.0))


@pytest.mark.parametrize("belief", [gl.Direction(), gl.Uninformative()], ids=repr)
def test_beliefs_that_no_client_can_hold_do_not_sample(belief):
    with pytest.raises(NotImplementedError):
        belief(gradient()).sample([(0,)])


def test_a_defense_of_ones_own_takes_three_lines():
    def clipped(gradient):
        return gl.Normal(gradient.map(lambda v: v.clamp(-1, 1)), scale=0.1)

    g = clipped(gradient()).sample([(0,)])
    assert torch.isfinite(clipped(gradient()).log_prob(g)).all()


def test_noise_says_its_scale():
    assert gl.GaussianNoise(0.3).noise_scale == 0.3
    assert gl.RandomMask(0.5, then=gl.LaplaceNoise(0.2)).noise_scale == 0.2
    with pytest.raises(ValueError, match=r"NoDefense\(\) after a mask adds no noise"):
        gl.RandomMask(0.5, then=gl.NoDefense()).noise_scale  # noqa: B018
