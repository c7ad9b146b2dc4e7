"""Races of climbs: the more probable point goes on, for each attack its own."""

import pytest
import torch

import gradleak as gl
from gradleak.attacks import LBFGS, Race, Rounded, attack_all

SIGNED = gl.Adam(steps=60, lr=0.1, decay=0.92, signed=True)
QUICK = Rounded(LBFGS(steps=60))
PRIOR = gl.TotalVariation(6.0)


def test_a_race_is_won_by_the_more_probable(client, view, digits):
    """A climb that stands still against one that climbs, in both orders; equal to it alone."""
    still = Rounded(gl.Adam(steps=60, lr=1e-9))
    for climbs in ((QUICK, still), (still, QUICK)):
        race = Race(climbs, share=0.2)
        found = gl.bayes(client, PRIOR, optimizer=race).attack(view)
        assert found.climbs == ("rounded L-BFGS",) * len(view)
        alone = gl.bayes(client, PRIOR, optimizer=QUICK.of_steps(48)).attack(view)
        assert (found.log_posterior > alone.log_posterior - 30).all()


def test_in_a_race_each_attack_has_its_own_winner(client, view, digits):
    """From the private image a climb by tiny steps is ahead; from noise it is far behind."""
    x = digits[0].clone()
    x[3:] = torch.rand(3, 1, 8, 8)
    still = gl.Adam(steps=60, lr=1e-9)
    wild = gl.Adam(steps=60, lr=0.05, signed=True)
    attack = gl.bayes(client, gl.TotalVariation(0.01), optimizer=Race((still, wild)))
    (found,) = attack_all([(attack, view)], starts=[x])
    assert found.climbs == ("Adam",) * 3 + ("signed Adam",) * 3
    torch.testing.assert_close(found.x[:3], x[:3], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Race((QUICK,)), "two or more climbs of equally many steps"),
        (lambda: Race((QUICK, gl.Adam(steps=10))), "two or more climbs of equally many steps"),
        (lambda: Race((QUICK, SIGNED), share=0.9), r"share must be a number in \(0, 0.5]"),
        (lambda: Race((QUICK, SIGNED), share=0.05), "too short for trials.*: give 80 steps"),
        (lambda: Race((Rounded(LBFGS(8)), gl.Adam(steps=8)), share=0.5), "4 steps are too few for"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_race_takes_no_ball_where_one_of_its_climbs_takes_none(client):
    race = Race((QUICK, SIGNED))
    with pytest.raises(ValueError, match=r"ball must be None.*climb with Adam"):
        gl.bayes(client, PRIOR, optimizer=race, ball=gl.Ball(1.0))


def test_shares_of_the_steps():
    race = Race((QUICK, SIGNED), share=0.2)
    assert [trial.steps for trial in race.trials] == [6, 6]
    assert race.trials[0].widths == (0.1,)
    assert [rest.steps for rest in race.rests] == [48, 48]
    assert race.of_steps(120).steps == 120
    assert race.trials[1].rate(6) == pytest.approx(SIGNED.rate(60))  # as far down in fewer steps
