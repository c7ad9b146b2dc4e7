import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gradleak as gl
from gradleak.attacks.latents import Joint
from gradleak.priors.prior import END, Moment

PRIORS = [
    gl.Flat(),
    gl.TotalVariation(2.0),
    gl.TotalVariation(2.0, power=2),
    gl.Box(),
    gl.BoxPenalty(3.0),
    gl.Sum((gl.TotalVariation(1.0), gl.BoxPenalty(2.0), gl.Box())),
]


@settings(max_examples=20)
@given(h=st.integers(2, 5), w=st.integers(2, 5), c=st.integers(1, 3), power=st.sampled_from([1, 2]))
def test_total_variation_by_hand(h, w, c, power):
    x = torch.rand(2, c, h, w, dtype=torch.double)
    expected = torch.zeros(2, dtype=torch.double)
    for n in range(2):
        for ch in range(c):
            for i in range(h):
                for j in range(w):
                    if i + 1 < h:
                        expected[n] += (x[n, ch, i, j] - x[n, ch, i + 1, j]).abs() ** power
                    if j + 1 < w:
                        expected[n] += (x[n, ch, i, j] - x[n, ch, i, j + 1]).abs() ** power
    torch.testing.assert_close(gl.TotalVariation(3.0, power).log_prob(x), -3 * expected)


def test_borders_do_not_wrap():
    edge = torch.zeros(1, 1, 4, 4)
    edge[..., 0] = 1
    middle = torch.zeros(1, 1, 4, 4)
    middle[..., 1] = 1
    prior = gl.TotalVariation(1.0)
    assert prior.log_prob(edge).item() == -4
    assert prior.log_prob(middle).item() == -8


@pytest.mark.parametrize("prior", PRIORS, ids=repr)
def test_images_do_not_mix(prior):
    x = torch.rand(4, 3, 5, 5) * 3 - 1
    whole = prior.log_prob(x)
    assert whole.shape == (4,)
    torch.testing.assert_close(prior.log_prob(x[[2]]), whole[[2]])
    client_batches = x.reshape(2, 2, 3, 5, 5)
    pairs = whole.reshape(2, 2).sum(1)
    torch.testing.assert_close(prior.log_prob(client_batches), pairs)


@pytest.mark.parametrize("prior", PRIORS, ids=repr)
def test_projection_is_idempotent_and_possible(prior):
    x = torch.randn(3, 1, 4, 4) * 3
    once = prior.project(x)
    assert torch.equal(prior.project(once), once)
    assert torch.isfinite(prior.log_prob(once)).all()


def test_the_box():
    x = torch.tensor([[0.5, 1.0], [0.5, 1.5]]).reshape(2, 1, 1, 2)
    assert gl.Box().log_prob(x).tolist() == [0, -math.inf]
    assert gl.Box().project(x).max() == 1
    assert gl.BoxPenalty(2.0).log_prob(x).tolist() == [0, -0.5]


def test_a_weight_for_each_attack():
    x = torch.rand(3, 1, 4, 4)
    weights = torch.tensor([0.0, 1.0, 2.0])
    each = gl.TotalVariation(weights).log_prob(x)
    torch.testing.assert_close(each, weights * gl.TotalVariation(1.0).log_prob(x))


def test_bad_priors_are_refused():
    with pytest.raises(ValueError, match="weight must be a number in"):
        gl.TotalVariation(-1.0)
    with pytest.raises(ValueError, match="weight must be a number in"):
        gl.BoxPenalty(-1.0)
    with pytest.raises(ValueError, match="power is 1 or 2"):
        gl.TotalVariation(1.0, power=3)
    with pytest.raises(ValueError, match="tuple of priors"):
        gl.Sum(())
    with pytest.raises(ValueError, match=r"images \(N, C, H, W\)"):
        gl.TotalVariation(1.0).log_prob(torch.rand(2, 5))


@dataclass(frozen=True)
class Falling(gl.Prior):
    """Says everything that a prior may say."""

    weight: float = 1.0

    def log_prob(self, x):
        return -self.weight * x.flatten(1).sum(1)

    def at(self, moment):
        return Falling(1 - moment.progress)

    def given(self, view):
        return Falling(float(view))

    @property
    def sources(self):
        return [gl.data.Source("toy", "train", (1, 2))]


@pytest.mark.parametrize("parts", [gl.Sum, lambda p: Joint(p[0], p[1], (1, 2, 2))])
def test_priors_made_of_others_pass_on_what_those_can(parts):
    whole = parts((Falling(), Falling()))
    x = torch.rand(3, 8) if isinstance(whole, Joint) else torch.rand(3, 1, 2, 2)
    now, told = whole.at(Moment(3, 4)), whole.given(2.0)
    torch.testing.assert_close(now.log_prob(x), 0.25 * whole.log_prob(x))
    torch.testing.assert_close(told.log_prob(x), 2 * whole.log_prob(x))
    assert whole.sources == 2 * Falling().sources


def test_a_prior_of_ones_own_says_its_density_alone():
    class Own(gl.Prior):
        pass

    x, own = torch.rand(2, 1, 3, 3), Own()
    assert own.at(END) is own.given(None) is own
    assert own.project(x) is x
    assert own.sources == []
    with pytest.raises(NotImplementedError, match="Own needs a method log_prob"):
        own.log_prob(x)
