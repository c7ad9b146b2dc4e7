"""Climbs in stages on rounded posteriors, their scores, and where they start."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import gradleak as gl
from gradleak.attacks import LBFGS, Rounded, attack_all, maximize, score_all

SIGNED = gl.Adam(steps=60, lr=0.1, decay=0.92, signed=True)
QUICK = Rounded(LBFGS(steps=60))
PRIOR = gl.TotalVariation(6.0)


@pytest.mark.parametrize("mask", [0.0, 0.5])
def test_it_ends_higher_than_signed_adam(client, digits, mask):
    """Nothing in total is certain of a climb; that this one is better is what it is there for."""
    client = replace(client, defense=gl.RandomMask(mask, then=client.defense))
    view = client.release(*digits)
    signed = gl.bayes(client, PRIOR, optimizer=SIGNED).attack(view)
    quick = gl.bayes(client, PRIOR, optimizer=QUICK).attack(view)
    assert (quick.log_posterior > signed.log_posterior).all()


def test_it_ends_at_least_as_high_as_the_private_image(client, view, digits):
    attack = gl.bayes(client, PRIOR, optimizer=QUICK)
    (private,) = score_all([(attack, view)], [digits[0]])
    assert (attack.attack(view).log_posterior >= private - 1).all()


def test_the_score_is_of_the_posterior_itself_in_float64(client, view, digits):
    attack = gl.bayes(client, PRIOR, optimizer=QUICK)
    found = attack.attack(view)
    (score,) = score_all([(attack, view)], [found.x])
    torch.testing.assert_close(found.log_posterior.double(), score, rtol=1e-6, atol=0)
    exact = replace(client, model=gl.gradients.in_float64(client.model))
    x = found.x.double()
    noise = torch.distributions.Normal(0, torch.tensor(0.1, dtype=torch.double))
    for n in range(len(x)):
        g = gl.gradients.general(exact.model, x[n : n + 1, None], view.y[n : n + 1, None])
        each = (noise.log_prob(view.g[k][n].double() - v[0]).sum() for k, v in g.items())
        expected = sum(each) + PRIOR.log_prob(found.x[n : n + 1])[0]
        torch.testing.assert_close(score[n], expected, rtol=0, atol=1e-6)


def test_rounding_helps_signed_adam_as_well(client, view):
    rounded = gl.bayes(client, PRIOR, optimizer=Rounded(SIGNED, widths=(0.1,))).attack(view)
    assert rounded.log_posterior.isfinite().all()
    assert rounded.climbs == ("rounded signed Adam",) * len(view)


def test_attacks_do_not_mix_and_the_seed_decides(client, view):
    attack = gl.bayes(client, PRIOR, optimizer=Rounded(LBFGS(steps=12)))
    whole = attack.attack(view, seed=4)
    some = attack.attack(view[[4, 1]], seed=4)
    torch.testing.assert_close(whole.x[[4, 1]], some.x, rtol=0, atol=2e-3)
    assert torch.equal(whole.x, attack.attack(view, seed=4).x)
    assert not torch.equal(whole.x, attack.attack(view, seed=5).x)


BELIEFS = {
    "laplace": gl.LaplaceNoise(0.1),
    "cosine": gl.Direction(3e4),
    "per layer": gl.LayerDirections(3e3),
    "mask": gl.RandomMask(0.5, then=gl.LaplaceNoise(0.1)),
    "mask unknown": gl.UnknownMask(0.5, then=gl.GaussianNoise(0.1)),
}


@pytest.mark.parametrize("belief", BELIEFS)
def test_every_belief_is_climbed_in_a_box(client, view, digits, belief):
    held = replace(client, defense=BELIEFS[belief])
    prior = gl.Sum((PRIOR, gl.Box()))
    first = gl.bayes(held, prior, optimizer=Rounded(LBFGS(steps=6))).attack(view)
    found = gl.bayes(held, prior, optimizer=QUICK).attack(view)
    assert ((found.x >= 0) & (found.x <= 1)).all()
    assert (found.log_posterior > first.log_posterior).all()
    assert gl.psnr(found.x, digits[0]).mean() > gl.psnr(first.x, digits[0]).mean()


def test_settings_computed_together_equal_those_computed_alone(client, view):
    climb = Rounded(LBFGS(steps=9))
    ways = [gl.bayes(client, gl.TotalVariation(w), optimizer=climb) for w in (1.0, 30.0)]
    together = attack_all([(a, view) for a in ways])
    for way, both in zip(ways, together, strict=True):
        torch.testing.assert_close(way.attack(view).x, both.x, rtol=0, atol=2e-3)


def test_a_temperature_is_held_through_a_stage(client, view):
    """In the last of three stages it is 1, so that an attack ends where one without it does."""
    warm = gl.bayes(client, PRIOR, optimizer=Rounded(LBFGS(steps=120)), temperature=4.0)
    cold = replace(warm, temperature=1.0)
    ends = [a.attack(view).log_posterior for a in (warm, cold)]
    assert (ends[0] - ends[1]).abs().median() < 20  # of some 3000 nats from start to end
    with pytest.raises(ValueError, match=r"temperature must be 1.0 for one climb.*Rounded"):
        replace(warm, optimizer=LBFGS()).attack(view)


def test_a_climb_may_start_anywhere(client, view, digits):
    attack = gl.bayes(client, PRIOR, optimizer=QUICK)
    short = replace(attack, optimizer=QUICK.ending())
    (private,) = score_all([(attack, view)], [digits[0]])
    (found,) = attack_all([(short, view)], starts=[digits[0]])
    assert (found.log_posterior >= private).all()
    with pytest.raises(ValueError, match="starts must be a tensor for each view, of the shapes"):
        attack_all([(short, view)], starts=[digits[0][:2]])
    with pytest.raises(ValueError, match="starts hold numbers that are not finite"):
        attack_all([(short, view)], starts=[digits[0] / 0])
    (score,) = score_all([(attack, view)], [digits[0] / 0])
    assert score.eq(-torch.inf).all()


def test_the_ending_is_the_last_of_its_stages():
    assert QUICK.ending() == Rounded(LBFGS(steps=20), widths=(0.03,))
    assert LBFGS(steps=100).ending() == LBFGS(steps=34)
    adam = gl.Adam(steps=90, lr=1.0, decay=0.9, drops=(0.5, 0.8))
    last = adam.ending()
    rates = [last.rate(step) for step in range(last.steps)]
    assert rates == pytest.approx([adam.rate(60 + step) for step in range(30)])


def test_a_network_without_relus_is_climbed_as_it_is(digits):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.Tanh(), nn.Linear(20, 10))
    client = gl.Client(model, gl.GaussianNoise(0.01))
    attack = gl.bayes(client, PRIOR, optimizer=Rounded(LBFGS(steps=9)))
    with pytest.warns(UserWarning, match="calls no ReLU"):
        attack.attack(client.release(*digits))


def test_a_prior_without_a_slope_leaves_a_climb_where_it_is(client, view):
    start = torch.rand(6, 1, 8, 8)
    alone = gl.prior_only(client, gl.Box(), optimizer=QUICK)
    assert torch.equal(attack_all([(alone, view)], starts=[start])[0].x, start)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rounded(LBFGS(steps=5)), "5 steps are too few for 3 stages"),
        (lambda: Rounded(widths=()), "too few|at least one"),
        (lambda: Rounded(widths=(0.1, -1.0)), "widths must be a tuple of numbers in"),
        (lambda: Rounded(widths=[0.1]), "widths must be a tuple"),
        (lambda: Rounded(corner=0.0), "corner must be a number in"),
        (lambda: Rounded(QUICK), "by must be a LBFGS or a Adam"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_climb_of_several_functions_does_not_climb_one():
    with pytest.raises(NotImplementedError, match=r"Rounded.*climbs several .* Adam or LBFGS"):
        maximize(lambda x, _: -x.square().sum(1), torch.ones(2, 3), QUICK)


def test_what_compares_values_takes_no_ball(client):
    for optimizer in (LBFGS(), QUICK):
        with pytest.raises(ValueError, match=r"ball must be None.*climb with Adam"):
            gl.bayes(client, PRIOR, optimizer=optimizer, ball=gl.Ball(1.0))
