"""One table for all attacks: how they are asked, what they answer, and what their repr tells."""

import dataclasses
import inspect
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from torch import nn

import gradleak as gl
from gradleak.attacks import (
    LBFGS,
    Averaged,
    Features,
    Langevin,
    Picked,
    PosteriorSamples,
    Rounded,
    Sample,
    UndoATS,
)

X, Y = gl.data.batch("digits", range(4))
KEYS = (7, 3, 11, 5)
MODEL = gl.models.mlp((1, 8, 8), 10, widths=(12,))
NOISY = gl.Client(MODEL, gl.GaussianNoise(0.1))
HIDING = gl.Client(MODEL, transform=gl.ATS("15"))
CLIMB = gl.Adam(steps=3)
FINITE = gl.attacks.FinitePrior(X, Y)


class Grey(nn.Module):
    """The best denoiser of pixels N(0.5, 0.2^2)."""

    def forward(self, x, sigma):
        return 0.5 + 0.04 / (0.04 + sigma.view(-1, 1, 1, 1) ** 2) * (x - 0.5)


@dataclass(frozen=True)
class Case:
    """An attack, the clients it is good for, and what it says of itself."""

    attack: gl.Attack
    client: gl.Client
    changes: tuple[dict, ...] = ()  # settings that its repr tells from its own
    labels: bool = True  # it needs them
    random: bool = True  # its answers depend on the seed


@cache
def cases():
    """By name; one at least of every class."""
    train = gl.data.load("digits", "train").take(range(80))
    gaussian = gl.priors.LowRankGaussian.fit(train, rank=5)
    ratio = gl.attacks.FirstLayer()
    samples = PosteriorSamples(NOISY, gl.Learned(Grey(), "grey"), 3, Langevin(steps=5))
    climb = gl.bayes(NOISY, gl.Box(), optimizer=CLIMB, restarts=2)
    ats = UndoATS(ratio, gl.ATS("15"), gaussian, noise=0.05)
    few = dict(steps=2, width=8)
    trained = (dict(highest=0.3), dict(steps=3))
    return {
        "climb": Case(climb, NOISY, (dict(restarts=3), dict(prior=gl.Flat()), dict(client=HIDING))),
        "smoothed climb": Case(replace(climb, ball=gl.Ball(0.5, 2)), NOISY, (dict(ball=None),)),
        "patient climb": Case(replace(climb, optimizer=replace(CLIMB, patience=1)), NOISY),
        "cosine": Case(gl.inverting_gradients(NOISY, optimizer=CLIMB), NOISY),
        "samples": Case(samples, NOISY, (dict(count=2), dict(answer=Sample(1)))),
        "one sample": Case(replace(samples, answer=Sample(1)), NOISY, (dict(answer=Sample(2)),)),
        "amortised": Case(
            gl.Amortised(NOISY, train, 0.05, 0.2, rank=8, **few), NOISY, trained, random=False
        ),
        "unrolled": Case(
            gl.Unrolled(NOISY, gl.GaussianNoise, train, 0.05, 0.2, stages=1, **few),
            NOISY, trained, random=False,
        ),
        "rounded climb": Case(
            replace(climb, optimizer=Rounded(LBFGS(steps=6))), NOISY, (dict(optimizer=CLIMB),)
        ),
        "features": Case(
            Features("dense1", optimizer=LBFGS(steps=3)), gl.Client(MODEL),
            (dict(scale=0.1), dict(prior=gl.Flat())), labels=False, random=False,
        ),
        "ratio": Case(
            ratio, gl.Client(MODEL), (dict(tolerance=0.1),), labels=False, random=False
        ),
        "exact": Case(
            gl.attacks.ExactAnswer(NOISY, FINITE, 3.0), NOISY, (dict(delta=4.0),),
            labels=False, random=False,
        ),
        "undone ATS": Case(
            ats, HIDING, (dict(noise=0.1), dict(answer=Picked()), dict(ats=gl.ATS("3"))),
            labels=False, random=False,
        ),
        "undone ATS, climbed": Case(replace(ats, inner=climb), HIDING, (dict(answer=Picked()),)),
    }  # fmt: skip


NAMES = ("climb", "smoothed climb", "patient climb", "cosine", "rounded climb",
         "samples", "one sample", "amortised", "unrolled", "ratio", "features", "exact",
         "undone ATS", "undone ATS, climbed")  # fmt: skip
every_attack = pytest.mark.parametrize("name", NAMES)


@cache
def view_of(client):
    return client.release(X, Y, key=KEYS)


def test_no_attack_is_left_out():
    public = [getattr(gl.attacks, name) for name in gl.attacks.__all__]
    classes = {c for c in public if inspect.isclass(c) and issubclass(c, gl.Attack)}
    assert {type(case.attack) for case in cases().values()} == classes - {gl.Attack}
    assert set(NAMES) == set(cases())


@every_attack
def test_it_is_asked_and_answers_like_all(name):
    case = cases()[name]
    asked = inspect.signature(type(case.attack).attack)
    assert [*asked.parameters] == ["self", "view", "seed"]
    assert asked.parameters["seed"].default == 0
    assert type(case.attack).__dataclass_params__.frozen
    found = case.attack.attack(view_of(case.client))
    assert isinstance(found, gl.Reconstruction)
    assert found.x.shape == X.shape
    assert found.x.isfinite().all()
    assert found.log_posterior.shape == (4,)
    assert found.restarts.shape[0] == 4
    best = found.restarts.amax(1)
    torch.testing.assert_close(found.log_posterior, best, equal_nan=True)
    assert found.seconds > 0


@every_attack
def test_each_client_is_answered_for_itself(name):
    """In any order, and with any others: by its key."""
    case = cases()[name]
    view = view_of(case.client)
    whole = case.attack.attack(view, seed=2)
    for order in ([2, 0, 3, 1], [3, 1], [2]):
        some = case.attack.attack(view[order], seed=2)
        # learnt stages compute in bfloat16
        atol = 2e-2 if name == "unrolled" else 1e-4
        torch.testing.assert_close(some.x, whole.x[order], rtol=1e-4, atol=atol)
        torch.testing.assert_close(
            some.log_posterior, whole.log_posterior[order], rtol=1e-4, atol=1e-2, equal_nan=True
        )


@every_attack
def test_labels_and_seeds_matter_where_it_says_so(name):
    case = cases()[name]
    view = view_of(case.client)
    if case.labels:
        with pytest.raises(ValueError, match="needs labels"):
            case.attack.attack(view.without_labels())
    else:
        assert case.attack.attack(view.without_labels()).x.shape == X.shape
    one, same, other = (case.attack.attack(view, seed).x for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert torch.equal(one, other) != case.random


@every_attack
def test_its_repr_tells_its_settings(name):
    attack = cases()[name].attack
    others = [replace(attack, **change) for change in cases()[name].changes]
    assert len({repr(a) for a in (attack, *others)}) == 1 + len(others)
    assert repr(replace(attack)) == repr(attack)
    assert " at 0x" not in repr(attack)
    assert "\n" not in repr(attack)
    assert all(isinstance(v, str | int | float) for v in attack.columns().values())


def test_attacks_say_which_images_they_know():
    known = gl.data.load("digits", "train").take(range(80)).source
    assert cases()["unrolled"].attack.sources == [known]
    assert cases()["amortised"].attack.sources == [known]
    assert cases()["undone ATS"].attack.sources == [known]
    assert cases()["climb"].attack.sources == []
    undone = replace(cases()["undone ATS"].attack, inner=cases()["unrolled"].attack)
    assert undone.sources == [known, known]


def test_of_a_list_the_right_image_is_told():
    """With little noise the exact answer is the private image; with no information, the prior's."""
    quiet, loud = (replace(NOISY, defense=gl.GaussianNoise(s)) for s in (1e-3, 1e3))
    p = torch.tensor([0.1, 0.2, 0.6, 0.1]).double()
    finite = gl.attacks.FinitePrior(X, torch.zeros_like(Y), p)
    for client, right in ((quiet, [0, 1, 2, 3]), (loud, [2, 2, 2, 2])):
        view = client.release(X, torch.zeros_like(Y))
        found = gl.attacks.ExactAnswer(client, finite).attack(view)
        assert torch.equal(found.x, X[right])
        chances = torch.ones(4) if client is quiet else p[right].float()
        torch.testing.assert_close(found.log_posterior.exp(), chances, rtol=0, atol=1e-3)


def test_undone_images_are_nearer():
    """The inner attack finds T(x); undoing T finds x, up to a mirror image."""
    case = cases()["undone ATS"]
    view = view_of(case.client)
    u = case.attack.inner.attack(view).x
    for answer in (Averaged(), Picked()):
        x_hat = replace(case.attack, answer=answer).attack(view).x
        errors = [torch.minimum(gl.mse(v, X), gl.mse(v.flip(-1), X)).mean() for v in (x_hat, u)]
        assert errors[0] < errors[1]


def test_an_attack_of_ones_own_needs_one_method():
    @dataclasses.dataclass(frozen=True)
    class MidGrey(gl.Attack):
        value: float = 0.5

        def attack(self, view, seed=0):
            x = torch.full((len(view), *view.shape), self.value)
            return gl.attacks.answered(x, begin=0.0)

    found = MidGrey().attack(view_of(NOISY))
    assert found.log_posterior.isnan().all()
    assert MidGrey().columns() == {"attack": repr(MidGrey())}
    with pytest.raises(NotImplementedError, match="Attack needs a method attack"):
        gl.Attack().attack(view_of(NOISY))


@every_attack
@pytest.mark.parametrize("nothing", [None, "view", 3, X])
def test_what_is_no_view_is_refused(name, nothing):
    with pytest.raises(ValueError, match=r"view must be .*ServerView"):
        cases()[name].attack.attack(nothing)


@every_attack
@pytest.mark.parametrize(
    "wrong",
    [
        (dict(g={}), r"g must be a .*Gradient"),
        (dict(key=(1,)), r"the view has 1 keys and g of 4 clients"),
        (dict(shape=[1, 8, 8]), r"shape must be a tuple"),
        (dict(client=None), r"give it a Client"),
    ],
    ids=repr,
)
def test_views_of_wrong_fields_are_refused(name, wrong):
    case, (wrong, said) = cases()[name], wrong
    with pytest.raises(ValueError, match=said):
        case.attack.attack(replace(view_of(case.client), **wrong))
