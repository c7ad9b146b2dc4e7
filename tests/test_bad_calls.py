"""Each number that a public call takes: good ones are taken, bad ones refused by name, at once."""

import copy
import math
import traceback
import warnings
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gradleak as gl
from gradleak import attacks, defenses, metrics, models, priors
from gradleak.attacks import exact, grid
from gradleak.defenses.ats_operations import Operation

HERE = Path(gl.__file__).parent
SHAPE = (1, 8, 8)
X, Y = gl.data.batch("digits", range(3))
SOME = gl.GaussianNoise(0.5)
INF = math.inf


def positive(value):
    return number(value) and 1e-18 <= value <= 1e18


def not_negative(value):
    return number(value) and 0 <= value <= 1e18


def number(value):
    return type(value) in (int, float) and not math.isnan(value)


def any_number(value):
    return number(value) and -1e18 < value < 1e18


def share(value):
    return number(value) and 0 <= value < 1


def inner(value):
    return number(value) and 0 < value < 1


def whole(value):
    return type(value) is int and value >= 0


def count(value):
    return type(value) is int and value >= 1


def some_or_none(value):
    return value is None or count(value)


def flag(value):
    return type(value) is bool


def all_of(one):
    return lambda values: isinstance(values, tuple | list) and all(map(one, values))


@dataclass(frozen=True)
class Call:
    """A public call: what is called, with good arguments, and which numbers are good."""

    call: object
    good: dict
    numbers: dict


@cache
def net():
    return models.mlp(SHAPE, 10, (6,))


@cache
def client():
    return gl.Client(net(), SOME)


@cache
def view():
    return client().release(X, Y)


@cache
def finite():
    return exact.FinitePrior(X, Y)


@cache
def law():
    return exact.GaussianLaw.between(finite().gradients(client()))


@cache
def plane():
    return grid.on_plane(lambda x: -x.square().sum(1), n=20)


@cache
def digits():
    return gl.data.load("digits", "train").take(range(20))


@cache
def low_rank():
    return priors.LowRankGaussian.fit(digits(), 2)


class Grey(torch.nn.Module):
    def forward(self, x, sigma):
        return 0.9 * x


def network(call, small=False, **more):
    sizes = {"shape": (1, 9, 9), "classes": 3, "seed": 0} | ({} if small else more)
    return Call(call, sizes, {"classes": count, "seed": whole} | dict.fromkeys(more, count))


def drawn(law, scale):
    return law(view().g, scale).sample([(0, k) for k in range(3)])


def adam(**options):
    return {"optimizer": gl.Adam(steps=1)} | options


SUBJECTS = {
    "GaussianNoise": Call(gl.GaussianNoise, {"scale": 0.5}, {"scale": positive}),
    "LaplaceNoise": Call(gl.LaplaceNoise, {"scale": 0.5}, {"scale": positive}),
    "RandomMask": Call(
        gl.RandomMask, {"rate": 0.5, "then": SOME, "seed": 0}, {"rate": share, "seed": whole}
    ),
    "LearnedNoise": Call(gl.LearnedNoise, {"scales": (0.5,)}, {"scales": all_of(positive)}),
    "learned_noise": Call(
        lambda scale: gl.learned_noise(view().g, scale), {"scale": 0.5}, {"scale": positive}
    ),
    "MagnitudePruning": Call(gl.MagnitudePruning, {"rate": 0.5}, {"rate": share}),
    "Soteria": Call(
        gl.Soteria, {"layer": "dense2", "rate": 0.5, "stabiliser": 0.1},
        {"rate": share, "stabiliser": positive},
    ),
    "Direction": Call(gl.Direction, {"concentration": 1.0}, {"concentration": positive}),
    "LayerDirections": Call(
        gl.LayerDirections, {"concentration": 1.0}, {"concentration": positive}
    ),
    "UnknownMask": Call(gl.UnknownMask, {"rate": 0.5, "then": SOME}, {"rate": inner}),
    "LayerWeights": Call(
        gl.LayerWeights, {"weights": (1.0, 2.0), "then": SOME}, {"weights": all_of(positive)}
    ),
    "Normal": Call(lambda scale: drawn(gl.Normal, scale), {"scale": 0.5}, {"scale": positive}),
    "Laplace": Call(lambda scale: drawn(gl.Laplace, scale), {"scale": 0.5}, {"scale": positive}),
    "MaskedAtRandom": Call(
        lambda rate: defenses.MaskedAtRandom(gl.Normal(view().g, 0.5), rate).log_prob(view().g),
        {"rate": 0.5}, {"rate": inner},
    ),
    "sample": Call(
        lambda keys: gl.Normal(view().g, 0.5).sample([(0, keys), (0, 1), (0, 2)]),
        {"keys": 0}, {"keys": whole},
    ),
    "Latent": Call(
        defenses.Latent, {"size": 2, "shape": SHAPE, "scale": 1.0},
        {"size": count, "scale": not_negative},
    ),
    "VariationalLoss": Call(defenses.VariationalLoss, {"weight": 0.1}, {"weight": not_negative}),
    "Bottleneck": Call(
        defenses.Bottleneck, {"features": 3, "size": 2}, {"features": count, "size": count}
    ),
    "TotalVariation": Call(
        gl.TotalVariation, {"weight": 0.1, "power": 1},
        {"weight": not_negative, "power": lambda v: type(v) is int and v in (1, 2)},
    ),
    "BoxPenalty": Call(gl.BoxPenalty, {"weight": 0.1}, {"weight": not_negative}),
    "Learned": Call(
        gl.Learned, {"denoiser": Grey(), "name": "a", "weight": 1.0, "start": 0.5, "end": 0.5,
                     "seed": 0},
        {"weight": not_negative, "start": lambda v: positive(v) and v >= 0.5,
         "end": lambda v: positive(v) and v <= 0.5, "seed": whole},
    ),
    "Moment": Call(priors.Moment, {"step": 0, "steps": 3}, {"step": whole, "steps": count}),
    "GaussianMixture": Call(
        lambda weight: gl.GaussianMixture(Grey(), "a", weight), {"weight": 1.0},
        {"weight": not_negative},
    ),
    "GaussianMixture.fit": Call(
        lambda **k: gl.GaussianMixture.fit(digits(), **k),
        {"components": 1, "blur": 0.1, "seed": 0},
        {"components": lambda v: count(v) and v <= 20,
         "blur": lambda v: positive(v) and v >= 1e-6, "seed": whole},
    ),
    "LowRankGaussian.fit": Call(
        lambda rank: priors.LowRankGaussian.fit(digits(), rank), {"rank": 2},
        {"rank": lambda v: count(v) and v < 20},
    ),
    "Denoiser": Call(
        lambda **k: priors.Denoiser(SHAPE, **k), {"deviation": 0.3, "width": 4, "seed": 0},
        {"deviation": positive, "width": lambda v: count(v) and v % 4 == 0, "seed": whole},
    ),
    "UNet": Call(
        priors.UNet, {"inputs": 1, "outputs": 1, "told": 2, "width": 4},
        {"inputs": count, "outputs": count, "told": count,
         "width": lambda v: count(v) and v % 4 == 0},
    ),
    "log_uniform": Call(
        partial(priors.log_uniform, rng=torch.Generator()),
        {"lowest": 0.5, "highest": 0.5, "count": 2},
        {"lowest": lambda v: positive(v) and v <= 0.5,
         "highest": lambda v: positive(v) and v >= 0.5, "count": whole},
    ),
    "fit": Call(
        lambda **k: priors.fit(copy.deepcopy(net()), lambda m: m(X).square().sum(), **k, what=""),
        {"steps": 1, "lr": 0.1}, {"steps": whole, "lr": positive},
    ),
    "Adam": Call(
        gl.Adam, {"steps": 3, "lr": 0.1, "decay": 0.9, "drops": (0.5,), "signed": True,
                  "patience": None},
        {"steps": whole, "lr": positive, "decay": lambda v: number(v) and 0 < v <= 1,
         "drops": lambda v: type(v) is tuple and all(number(n) and 0 <= n <= 1 for n in v),
         "signed": flag, "patience": some_or_none},
    ),
    "Ball": Call(gl.Ball, {"radius": 1.0, "samples": 2}, {"radius": positive, "samples": count}),
    "FreshLatents": Call(
        attacks.FreshLatents, {"samples": 2, "size": 2}, {"samples": count, "size": count}
    ),
    "Known": Call(attacks.Known, {"z": 0.0}, {"z": any_number}),
    "Adversary": Call(
        lambda **k: gl.bayes(client(), gl.Box(), **k), {"temperature": 1.0, "restarts": 1},
        {"temperature": lambda v: positive(v) and v >= 1, "restarts": count},
    ),
    "dlg": Call(lambda scale: gl.dlg(client(), scale=scale), {"scale": 1.0}, {"scale": positive}),
    "l1": Call(lambda scale: gl.l1(client(), scale=scale), {"scale": 1.0}, {"scale": positive}),
    "inverting_gradients": Call(
        lambda concentration: gl.inverting_gradients(client(), concentration=concentration),
        {"concentration": 1.0}, {"concentration": positive},
    ),
    "attack": Call(
        gl.bayes(client(), gl.Box(), **adam()).attack, {"view": view(), "seed": 0}, {"seed": whole}
    ),
    "attack_all": Call(
        lambda **k: attacks.attack_all([(gl.bayes(client(), gl.Box(), **adam()), view())], **k),
        {"seed": 0, "chunk": 2}, {"seed": whole, "chunk": some_or_none},
    ),
    "release": Call(
        lambda **k: client().release(X, Y, **k), {"seed": 0}, {"seed": whole}
    ),
    "Langevin": Call(
        attacks.Langevin, {"steps": 3, "rate": 0.5, "look": 1},
        {"steps": count, "rate": lambda v: number(v) and 0 < v < 2, "look": count},
    ),
    "Sample": Call(attacks.Sample, {"k": 0}, {"k": whole}),
    "MostWithin": Call(attacks.MostWithin, {"delta": 1.0}, {"delta": not_negative}),
    "PosteriorSamples": Call(
        lambda count: attacks.PosteriorSamples(client(), gl.Learned(Grey(), "a"), count),
        {"count": 2}, {"count": lambda v: type(v) is int and v >= 1},
    ),
    "FirstLayer": Call(
        attacks.FirstLayer, {"tolerance": 0.1}, {"tolerance": lambda v: number(v) and v >= 0}
    ),
    "Amortised": Call(
        lambda **k: gl.Amortised(client(), digits(), **k),
        {"lowest": 0.5, "highest": 0.5, "rank": 2, "steps": 1, "width": 4, "batch_size": 2,
         "lr": 0.1, "seed": 0},
        {"lowest": lambda v: positive(v) and v <= 0.5,
         "highest": lambda v: positive(v) and v >= 0.5, "rank": count, "steps": count,
         "width": count, "batch_size": count, "lr": positive, "seed": whole},
    ),
    "Unrolled": Call(
        lambda **k: gl.Unrolled(client(), gl.GaussianNoise, digits(), 0.5, 0.5, **k),
        {"stages": 1, "steps": 1, "width": 4, "batch_size": 2, "lr": 0.1, "seed": 0},
        {"stages": count, "steps": count, "width": lambda v: count(v) and v % 4 == 0,
         "batch_size": count, "lr": positive, "seed": whole},
    ),
    "UndoATS": Call(
        lambda noise: attacks.UndoATS(attacks.FirstLayer(), gl.ATS("1"), low_rank(), noise),
        {"noise": 0.1}, {"noise": positive},
    ),
    "undo": Call(
        lambda noise: attacks.undo(X[:1], gl.ATS("1"), low_rank(), noise), {"noise": 0.1},
        {"noise": positive},
    ),
    "ExactAnswer": Call(
        lambda delta: attacks.ExactAnswer(client(), finite(), delta), {"delta": 0.0},
        {"delta": not_negative},
    ),
    "near": Call(finite().near, {"delta": 0.0}, {"delta": not_negative}),
    "gradients": Call(finite().gradients, {"client": client(), "chunk": 2}, {"chunk": count}),
    "noise": Call(law().noise, {"seed": 0}, {"seed": whole}),
    "products": Call(
        law().products, {"scale": 0.5, "noise": law().noise()}, {"scale": positive}
    ),
    "gaussian": Call(
        law().gaussian, {"products": law().products(0.5, law().noise()), "scale": 0.5, "kind": 0},
        {"scale": positive, "kind": lambda v: type(v) is int and v == 0},
    ),
    "cosine": Call(
        law().cosine, {"products": law().products(0.5, law().noise()), "kind": 0},
        {"kind": lambda v: type(v) is int and v == 0},
    ),
    "gaussian_risks": Call(
        lambda **k: exact.gaussian_risks(client(), finite(), **k),
        {"scales": (0.5,), "delta": 0.0, "rounds": 1},
        {"scales": all_of(positive), "delta": not_negative, "rounds": lambda v: count(v) and v < 9},
    ),
    "on_plane": Call(
        lambda **k: grid.on_plane(lambda x: -x.square().sum(1), **k),
        {"low": 0.0, "high": 1.0, "n": 4},
        {"low": lambda v: any_number(v) and v < 1, "high": lambda v: any_number(v) and v > 0,
         "n": lambda v: type(v) is int and 2 <= v < 1000},
    ),
    "mass": Call(
        plane().mass, {"delta": 0.2}, {"delta": lambda v: positive(v) and v >= 0.05}
    ),
    "within plane": Call(
        plane().within, {"point": torch.zeros(2), "delta": 0.2}, {"delta": not_negative}
    ),
    "within": Call(
        metrics.within, {"x_hat": X, "x": X, "delta": 1.0},
        {"delta": lambda v: number(v) and 0 <= v < INF},
    ),
    "interval": Call(
        gl.interval, {"values": (1.0, 2.0)},
        {"values": lambda v: isinstance(v, tuple | list) and len(v) and all(
            type(n) in (int, float) and abs(n) < 1e150 for n in v)},
    ),
    "holm": Call(
        metrics.holm, {"p": (0.1,)},
        {"p": all_of(lambda v: number(v) and 0 <= v <= 1)},
    ),
    "crossing": Call(
        metrics.crossing, {"means": {1.0: metrics.Interval(1, 1, 1, 1)}, "target": 1.0},
        {"target": lambda v: number(v) and abs(v) < INF},
    ),
    "Normalize": Call(
        models.Normalize, {"mean": (0.5,), "std": (0.5,)},
        {"mean": lambda v: all_of(any_number)(v) and len(v) == 1,
         "std": lambda v: all_of(positive)(v) and len(v) == 1},
    ),
    "cnn": network(models.cnn), "cnn2": network(models.cnn2), "convbig": network(models.convbig),
    "lenet": network(models.lenet), "convnet": network(models.convnet, width=2),
    "mlp": network(models.mlp),
    "mlp widths": Call(
        models.mlp, {"shape": SHAPE, "classes": 3, "widths": (4,)}, {"widths": all_of(count)}
    ),
    "precode_ffn": network(defenses.precode_ffn, size=2),
    "precode_lenet": network(defenses.precode_lenet, size=2),
    "Operation": Call(
        Operation, {"name": "rotate", "level": 0},
        {"level": lambda v: type(v) is int and 0 <= v < 10},
    ),
    "Transformation": Call(
        lambda **k: defenses.Transformation(operations=(), **k), {"shift": (0, 0), "flip": True},
        {"flip": flag, "shift": lambda v: type(v) is tuple and len(v) == 2
         and all(type(n) is int and 0 <= n <= 8 for n in v)},
    ),
    "Rescaled": Call(
        lambda weights: defenses.Rescaled(
            gl.Normal(view().g, 0.5), dict.fromkeys(view().g, weights)),
        {"weights": 1.0}, {"weights": positive},
    ),
}  # fmt: skip
CASES = [(name, what) for name, subject in SUBJECTS.items() for what in subject.numbers]
BAD = (
    math.nan, INF, -INF, -1, -1.0, 0, 0.0, "a", "", "1", None, True, False, 1.5, 1, 2, 1j, b"1",
    (), [], {}, (-1,), (math.nan,), ("a",), (None,), (1.5,), torch.tensor(math.nan), object(),
)  # fmt: skip


def outcome(name, what, value):
    """What a call with one other number comes to: "clear", "right", "raw" or "silent"."""
    subject = SUBJECTS[name]
    good = subject.numbers[what](value)
    if good is None:
        return "right"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            subject.call(**subject.good | {what: value})
    except Exception as error:
        last = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        ours = HERE in last.parents and isinstance(error, ValueError | TypeError)
        named = what.rstrip("s") in str(error)
        return "clear" if ours and named and not good else "raw"
    return "right" if good else "silent"


@pytest.mark.parametrize("name", SUBJECTS)
def test_each_number_is_taken_or_refused_by_name(name):
    tried = [(what, value) for what in SUBJECTS[name].numbers for value in BAD]
    found = {repr((what, value)): outcome(name, what, value) for what, value in tried}
    assert {k: v for k, v in found.items() if v not in ("clear", "right")} == {}


ONE = st.floats() | st.sampled_from([-2, -1, 0, 1, 2, 4]) | st.text() | st.none() | st.booleans()
VALUES = ONE | st.binary() | st.lists(ONE, max_size=3) | st.lists(ONE, max_size=3).map(tuple)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(CASES), VALUES)
def test_so_is_whatever_else_comes(case, value):
    assert outcome(*case, value) in ("clear", "right")


if __name__ == "__main__":  # how many calls end how
    from collections import Counter

    print(Counter(outcome(*case, value) for case in CASES for value in BAD))
