"""The exact posterior and risk, against enumeration, simulation and closed forms."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import gradleak as gl
from gradleak.attacks import exact

X, Y = gl.data.batch("digits", range(12))
MODEL = gl.models.mlp((1, 8, 8), 10, widths=(8,)).double()
PRIOR = exact.FinitePrior(X.double(), Y)
DEFENSES = [
    gl.GaussianNoise(0.5),
    gl.LaplaceNoise(0.5),
    gl.RandomMask(0.7, then=gl.GaussianNoise(0.5)),
    gl.RandomMask(0.7, then=gl.LaplaceNoise(0.5)),
    gl.LearnedNoise((0.2, 0.4, 0.8, 1.6)),
]
BELIEFS = [
    *DEFENSES,
    gl.GaussianNoise(5.0),
    gl.RandomMask(0.7, then=gl.GaussianNoise(0.5), seed=1),
    gl.UnknownMask(0.7, then=gl.GaussianNoise(0.5)),
    gl.Direction(100.0),
    gl.LayerDirections(10.0),
    gl.Uninformative(),
]


def released(defense, prior=PRIOR, seed=0):
    client = gl.Client(MODEL, defense)
    return prior.gradients(client), client.release(prior.x, prior.y, seed=seed).g


def test_posterior_is_bayes_rule_by_enumeration():
    p = torch.arange(1.0, 13.0).double() / 78
    prior = exact.FinitePrior(X.double(), Y, p)
    f, g = released(gl.GaussianNoise(0.5), prior)
    found = exact.posterior(exact.log_likelihoods(gl.GaussianNoise(0.5), f, g), prior.log_prob())
    for m in range(12):
        logs = [
            math.log(p[n])
            + sum(scipy.stats.norm.logpdf(g[k][m].numpy(), f[k][n].numpy(), 0.5).sum() for k in f)
            for n in range(12)
        ]
        weights = [math.exp(v - max(logs)) for v in logs]
        expected = [w / sum(weights) for w in weights]
        assert found[m].tolist() == pytest.approx(expected, abs=1e-10)


@pytest.mark.filterwarnings("ignore:no two examples are within")
@settings(max_examples=15)
@given(
    st.sampled_from(range(len(DEFENSES))),
    st.integers(0, 1000),
    st.floats(0, 5),
    st.lists(st.floats(0.05, 1), min_size=12, max_size=12),
)
def test_no_belief_has_a_lower_risk_than_the_truth(which, seed, delta, weights):
    p = torch.tensor(weights).double()
    prior = exact.FinitePrior(X.double(), Y, p / p.sum())
    f, g = released(DEFENSES[which], prior, seed)
    near, log_prior = prior.near(delta), prior.log_prob()
    true = exact.posterior(exact.log_likelihoods(DEFENSES[which], f, g), log_prior)
    best = exact.risk(exact.answer(true, near), true, near)
    for belief in BELIEFS:
        held = exact.posterior(exact.log_likelihoods(belief, f, g), log_prior)
        assert (exact.risk(exact.answer(held, near), true, near) >= best - 1e-12).all()


@pytest.mark.slow
def test_gram_matrix_has_the_law_of_what_is_simulated():
    """Log-likelihood differences of real noisy gradients, against those from inner products."""
    mask = gl.RandomMask(0.7, then=gl.GaussianNoise(0.5))
    client = gl.Client(MODEL, mask)
    f = PRIOR.gradients(client)
    law = exact.GaussianLaw.between(mask(f).loc, f)
    drawn = [law.products(0.5, law.noise(seed)) for seed in range(300)]
    real = [client.release(PRIOR.x, PRIOR.y, seed=seed).g for seed in range(300)]
    for held, belief in ((0, mask), (1, gl.GaussianNoise(0.5))):
        ours = torch.stack([law.gaussian(d, 0.5, held) for d in drawn])
        theirs = torch.stack([exact.log_likelihoods(belief, f, g.rows(slice(0, 3))) for g in real])
        for i, j, k in ((0, 0, 1), (1, 5, 2), (2, 2, 9)):
            a, b = (v[:, i, j] - v[:, i, k] for v in (ours, theirs))
            assert scipy.stats.ks_2samp(a.numpy(), b.numpy()).pvalue > 1e-3
    cosine = torch.stack([law.cosine(d, 1)[0] for d in drawn])
    norms = torch.stack([g.rows(slice(0, 1)).sq_norm().sqrt() for g in real])
    theirs = torch.stack(
        [exact.log_likelihoods(gl.Direction(1.0), f, g.rows(slice(0, 1)))[0] for g in real]
    )
    a, b = cosine[:, 4] - cosine[:, 0], (theirs * norms)[:, 4] - (theirs * norms)[:, 0]
    assert scipy.stats.ks_2samp(a.numpy(), b.numpy()).pvalue > 1e-3


def identity(n):
    """A client whose gradient is x itself."""
    return gl.Client(nn.Linear(n, 1, bias=False).double(), loss=lambda out, y: out.mean())


def test_risk_between_two_examples_is_the_closed_form():
    """Two points d apart in Gaussian noise are confused with chance Phi(-d / 2 scale)."""
    prior = exact.FinitePrior(torch.tensor([[0.0, 0.0], [0.6, 0.8]]).double(), torch.zeros(2))
    law = exact.GaussianLaw.between(prior.gradients(identity(2)))
    scales = (0.2, 0.5, 2.0)
    found = exact.risks(law, {"Bayes": law.gaussian}, prior, scales, prior.near(0.0), 2000)
    for scale in scales:
        rounds = np.array(found["Bayes"][scale])
        error = 5 * rounds.std() / math.sqrt(len(rounds)) + 1e-9
        assert rounds.mean() == pytest.approx(scipy.stats.norm.cdf(-0.5 / scale), abs=error)


def test_risk_is_zero_without_noise_and_a_guess_with_too_much():
    law = exact.GaussianLaw.between(PRIOR.gradients(gl.Client(MODEL)))
    beliefs = {"Bayes": law.gaussian, "cosine": lambda products, _: law.cosine(products)}
    found = exact.risks(law, beliefs, PRIOR, (1e-6, 1e6), PRIOR.near(0.0), 3)
    # each label's examples are guessed among themselves
    guess = 1 - len(Y.unique()) / len(Y)
    for scale, expected in ((1e-6, 0.0), (1e6, guess)):
        assert found["Bayes"][scale] == pytest.approx([expected] * 3, abs=1e-4)
        assert all(c >= b - 1e-12 for b, c in zip(*(v[scale] for v in found.values()), strict=True))


def test_a_known_label_leaves_its_own_examples():
    log_p = PRIOR.log_prob(PRIOR.y)
    assert torch.allclose(log_p.exp().sum(1), torch.ones(12).double())
    assert ((log_p > -torch.inf) == (Y[:, None] == Y)).all()


def test_neighbours_are_those_within_delta():
    near = PRIOR.near(3.0)
    for j in range(12):
        for k in range(12):
            assert bool(near[j, k]) == bool((X[j] - X[k]).norm() <= 3.0)
    assert torch.equal(PRIOR.near(0.0), torch.eye(12).double())
    with pytest.warns(UserWarning, match=r"no two examples are within 0.1, the closest are"):
        assert torch.equal(PRIOR.near(0.1), torch.eye(12).double())


def test_examples_are_taken_as_the_model_takes_them():
    """Images in float32, a model in float64: as a model elsewhere, it gets what it needs."""
    client = gl.Client(MODEL, gl.GaussianNoise(0.5))
    found, expected = exact.FinitePrior(X, Y).gradients(client), PRIOR.gradients(client)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_bad_priors_are_refused():
    with pytest.raises(ValueError, match=r"got \(0, 1, 8, 8\) and \(0,\)"):
        exact.FinitePrior(X[:0], Y[:0])
    with pytest.raises(ValueError, match="some examples are equal"):
        exact.FinitePrior(X[[0, 1, 0]], Y[[0, 1, 0]])
    equal, nan = torch.ones(12).double() / 12, torch.full((12,), torch.nan)
    for p in (torch.ones(12), -equal, torch.ones(3) / 3, 1.1 * equal, 0.9 * equal, nan,
              equal + 1e-6, torch.tensor([1.5, -0.5] + 10 * [0.0])):  # fmt: skip
        with pytest.raises(ValueError, match="12 chances that sum to one"):
            exact.FinitePrior(X, Y, p)
    with pytest.raises(ValueError, match="delta must be a number in"):
        PRIOR.near(-1.0)
    f, g = released(gl.GaussianNoise(0.5))
    with pytest.raises(NotImplementedError, match="no density"):
        exact.log_likelihoods(gl.NoDefense(), f, g)


def test_the_nearest_example_is_searched_among_those_of_the_label():
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.1, 0.1]])
    prior = exact.FinitePrior(x, torch.tensor([0, 1, 1]))
    assert prior.nearest(torch.zeros(2, 2), torch.tensor([0, 1])).tolist() == [0, 2]
    assert prior.nearest(x, prior.y).tolist() == [0, 1, 2]


@given(st.integers(2, 8), st.integers(0, 1000))
def test_the_answer_has_the_most_mass_within_delta(count, seed):
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 2, generator=rng).double()
    held = torch.rand(5, count, generator=rng).double().softmax(1)
    near = exact.FinitePrior(x, torch.zeros(count)).near(1.5)  # every pair is within sqrt(2)
    assert torch.equal(near, torch.ones(count, count).double())
    apart = [[float((a - b).norm()) for b in x] for a in x]
    delta = sorted(d for row in apart for d in row if d > 0)[0] * 1.5
    answers = exact.answer(held, exact.FinitePrior(x, torch.zeros(count)).near(delta))
    for chances, who in zip(held.tolist(), answers.tolist(), strict=True):
        mass = [sum(p for p, d in zip(chances, row, strict=True) if d <= delta) for row in apart]
        assert mass[who] == pytest.approx(max(mass), abs=1e-12)


def test_a_pair_beats_the_most_probable_example():
    """Chances 0.4, 0.3, 0.3, and the last two are neighbours: without the ball it is the first."""
    prior = exact.FinitePrior(torch.tensor([[0.0], [5.0], [5.1]]), torch.zeros(3))
    held = torch.tensor([0.4, 0.3, 0.3]).double()
    assert exact.answer(held, prior.near(0.2)) == 1
    assert exact.answer(held, prior.near(0.0)) == 0


@pytest.mark.parametrize(
    ("x", "y", "match"),
    [
        (X.numpy(), Y, "x must be a Tensor"),
        (X, Y.tolist(), "y must be a Tensor"),
        (X, Y[:5], r"got \(12, 1, 8, 8\) and \(5,\)"),
        (X, Y[:, None], r"and \(12, 1\)"),
        (X, torch.tensor(3), r"and \(\)"),
        (torch.tensor(1.0), torch.tensor(3), "labelled examples"),
        (X[:, :0], Y, "labelled examples"),
        (X * torch.nan, Y, "not finite"),
        (X, Y / 0, "not finite"),
        (X.repeat(2, 1, 1, 1), Y.repeat(2), "some examples are equal"),
    ],
)
def test_examples_that_are_none_are_refused(x, y, match):
    with pytest.raises(ValueError, match=match):
        exact.FinitePrior(x, y)


def test_equal_images_of_other_labels_are_two_examples():
    assert len(exact.FinitePrior(X[[0, 0]], torch.tensor([0, 1]))) == 2


def test_labels_that_no_possible_example_has_are_refused():
    impossible = exact.FinitePrior(X[:3], Y[:3], torch.tensor([0.5, 0.5, 0.0]))
    for prior, y in ((PRIOR, torch.tensor([0, 77])), (impossible, Y[2:3])):
        with pytest.raises(ValueError, match="no possible example of the prior has the label"):
            prior.log_prob(y)
        with pytest.raises(ValueError, match="no possible example of the prior has the label"):
            prior.nearest(X[: len(y)].to(prior.x), y)
    client = gl.Client(MODEL, gl.GaussianNoise(0.5))
    attack = exact.ExactAnswer(client, exact.FinitePrior(X[:3], Y[:3]))
    with pytest.raises(ValueError, match="no possible example"):
        attack.attack(client.release(X[4:5], Y[4:5]))


@pytest.mark.parametrize("delta", [-1.0, float("nan"), "a", None, True, 1j])
def test_a_delta_is_a_distance(delta):
    with pytest.raises(ValueError, match="delta must be a number"):
        PRIOR.near(delta)
    with pytest.raises(ValueError, match="delta must be a number"):
        exact.ExactAnswer(gl.Client(MODEL), PRIOR, delta)


def test_examples_of_another_shape_than_the_clients_are_refused():
    client = gl.Client(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), gl.GaussianNoise(0.5))
    attack = exact.ExactAnswer(client, exact.FinitePrior(X.flatten(1), Y))
    with pytest.raises(ValueError, match="cannot be the x of clients"):
        attack.attack(client.release(X[:1], Y[:1]))
