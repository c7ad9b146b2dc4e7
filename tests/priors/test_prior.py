import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gradleak as gl
from gradleak.attacks.latents import Joint
from gradleak.identity import digest
from gradleak.priors.prior import END, Moment

PRIORS = [
    gl.Flat(),
    gl.TotalVariation(2.0),
    gl.TotalVariation(2.0, power=2),
    gl.Box(),
    gl.BoxPenalty(3.0),
    gl.Sum((gl.TotalVariation(1.0), gl.BoxPenalty(2.0), gl.Box())),
]


def looped(example, power, axes):
    """The variation of one example (numpy) along its last axes, neighbour by neighbour."""
    total = 0.0
    for place in np.ndindex(example.shape):
        for axis in range(example.ndim - axes, example.ndim):
            after = tuple(p + (k == axis) for k, p in enumerate(place))
            if after[axis] < example.shape[axis]:
                total += abs(example[place] - example[after]) ** power
    return total


def view(client, shape):
    """What a server sees of one client whose x has this shape; only that counts here."""
    return gl.ServerView(client, gl.Gradient({"weight": torch.ones(1, 1)}), None, shape, (0,))


EXAMPLE = st.lists(st.integers(1, 4), min_size=2, max_size=4).map(tuple)


@settings(max_examples=40)
@given(
    example=EXAMPLE,
    batch=st.one_of(st.none(), st.integers(1, 3)),
    power=st.sampled_from([1, 2]),
    told=st.integers(0, 4),
)
def test_total_variation_by_hand(example, batch, power, told):
    """Series, images and volumes, alone or in a client's batch, along told axes or by shape."""
    axes = min(told, len(example)) or None
    shape = example if batch is None else (batch, *example)
    x = torch.rand(2, *shape, dtype=torch.double)
    client = gl.Client(torch.nn.Linear(1, 1), batch_size=batch)
    prior = gl.TotalVariation(3.0, power, axes).given(view(client, shape))
    each = x.view(2, -1, *example).numpy()
    along = axes or len(example) - 1
    expected = torch.tensor([sum(looped(e, power, along) for e in row) for row in each]).double()
    torch.testing.assert_close(prior.log_prob(x), -3 * expected)


@settings(max_examples=20)
@given(h=st.integers(2, 5), w=st.integers(2, 5), c=st.integers(1, 3), power=st.sampled_from([1, 2]))
def test_without_a_view_an_image_is_meant(h, w, c, power):
    x = torch.rand(2, c, h, w, dtype=torch.double)
    expected = torch.tensor([looped(image.numpy(), power, 2) for image in x]).double()
    torch.testing.assert_close(gl.TotalVariation(3.0, power).log_prob(x), -3 * expected)


@pytest.mark.parametrize("shape", [(14,), (1,), (3, 14)])
def test_a_table_has_no_neighbours(shape):
    client = gl.Client(torch.nn.Linear(1, 1), batch_size=3 if len(shape) == 2 else None)
    for prior in (gl.TotalVariation(1.0), gl.Sum((gl.TotalVariation(1.0), gl.Box()))):
        with pytest.raises(ValueError, match=r"needs neighbours.*prior=gl\.Flat.*gl\.Box\(\)"):
            prior.given(view(client, shape))
    with pytest.raises(ValueError, match=r"no 3 axes"):
        gl.TotalVariation(1.0, axes=3).given(view(client, shape))


def test_the_name_of_a_prior_tells_axes_where_they_were_given():
    plain, told = gl.TotalVariation(1.0), gl.TotalVariation(1.0, axes=1)
    assert repr(plain) == "TotalVariation(weight=1.0, power=1)"
    assert repr(told) == "TotalVariation(weight=1.0, power=1, axes=1)"
    assert eval(repr(told), {"TotalVariation": gl.TotalVariation}) == told
    assert digest(plain) == digest(gl.TotalVariation(1.0, axes=None)) != digest(told)


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
    for shape in [(2, 5), (2, 3, 5)]:
        with pytest.raises(ValueError, match=r"images \(N, C, H, W\).*axes=1.*gl\.Box"):
            gl.TotalVariation(1.0).log_prob(torch.rand(shape))
    for axes in (0, -1, 1.5, True, "2"):
        with pytest.raises(ValueError, match="axes is how many"):
            gl.TotalVariation(1.0, axes=axes)


@dataclass(frozen=True)
class Falling(gl.Prior):
    """Says everything that a prior may say."""

    weight: float = 1.0

    def log_prob(self, x):
        return -self.weight * x.flatten(1).sum(1)

    def at(self, moment):
        return Falling(1 - moment.progress)

    def given(self, view):
        return Falling(float(len(view)))

    @property
    def sources(self):
        return [gl.data.Source("toy", "train", (1, 2))]


@pytest.mark.parametrize("parts", [gl.Sum, lambda p: Joint(p[0], p[1], (1, 2, 2))])
def test_priors_made_of_others_pass_on_what_those_can(parts):
    whole = parts((Falling(), Falling()))
    x = torch.rand(3, 8) if isinstance(whole, Joint) else torch.rand(3, 1, 2, 2)
    clients = gl.ServerView(gl.Client(torch.nn.Linear(1, 1)), gl.Gradient({}), None, (8,), (0, 1))
    now, told = whole.at(Moment(3, 4)), whole.given(clients)
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
