"""Who changes the values of a class must raise its revision: tiny results of each, recomputed.

To write the table anew: python tests/experiment/test_revisions.py --write
"""

import json
import sys
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from torch import nn

import gradleak as gl
from gradleak.attacks import (
    LBFGS,
    Averaged,
    ExactAnswer,
    Features,
    FinitePrior,
    FirstLayer,
    FreshLatents,
    Joint,
    Known,
    Langevin,
    Mean,
    MostWithin,
    Picked,
    PosteriorSamples,
    Race,
    ReadOff,
    Rounded,
    Sample,
    StandardNormal,
    UndoATS,
)
from gradleak.defenses import Latent, VariationalLoss, precode_ffn, precode_lenet
from gradleak.identity import describe

TABLE = Path(__file__).parent / "revisions.json"
COMMAND = "python tests/experiment/test_revisions.py --write"
SHAPE = (1, 8, 8)
X, Y = gl.data.batch("digits", [0, 1])
TRAIN = gl.data.load("digits", "train").take(range(80))
ROUNDING = 5e-4  # pixels; with one thread or two values differ by less than 1e-6


def mlp():
    return gl.models.mlp(SHAPE, 10, (12,))


def climb(truth, belief=None, prior=gl.Flat(), net=None, transform=None, **options):
    """What five steps find of two digits, summarised."""
    client = gl.Client(mlp() if net is None else net, truth, transform=transform)
    believed = gl.Client(client.model, truth if belief is None else belief)
    options = {"optimizer": gl.Adam(steps=5)} | options
    return asked(client, gl.Adversary(believed, prior, **options))


def asked(client, attack):
    """What any attack answers to the client, summarised."""
    return summary(attack.attack(client.release(X, Y), seed=0).x)


def summary(x):
    """Mean, spread, and mean along a ramp of each row."""
    flat = x.detach().double().flatten(1)
    ramp = torch.linspace(-1, 1, flat.shape[1]).double()
    parts = flat.mean(1), flat.std(1), (flat * ramp).mean(1)
    return torch.stack(parts, 1).flatten().tolist()


def latents(latent=Known(), **options):
    net = precode_lenet(SHAPE, 10, size=4)
    prior = Joint(gl.Box(), latent, SHAPE)
    return climb(gl.NoDefense(), gl.Direction(10.0), prior, net, Latent(4, SHAPE), **options)


def variational():
    torch.manual_seed(0)
    return [VariationalLoss(0.1)((torch.rand(2, 10), torch.rand(2, 4), torch.rand(2, 4)), Y).item()]


def trained():
    client = gl.Client(mlp(), gl.GaussianNoise(0.1))
    (last,) = gl.train.checkpoints(client, TRAIN, [3], batch_size=4)
    return summary(last.model(X))


def denoiser():
    with TemporaryDirectory() as folder:
        return gl.priors.trained_denoiser(TRAIN, Path(folder), steps=5, width=4, batch_size=8)


def sampled(answer, how=Langevin(3)):
    client = gl.Client(mlp(), SOME)
    prior = gl.Learned(denoiser(), "digits")
    return asked(client, PosteriorSamples(client, prior, 2, how, answer=answer))


def undone(answer):
    client = gl.Client(mlp(), SOME, transform=gl.ATS("1"))
    inner = gl.bayes(gl.Client(mlp(), SOME), gl.Box(), optimizer=gl.Adam(steps=5))
    images = gl.priors.LowRankGaussian.fit(TRAIN, 4)
    return asked(client, UndoATS(inner, gl.ATS("1"), images, 0.1, answer=answer))


def built(build, side=8, **options):
    x = nn.functional.interpolate(X, (side, side))
    return summary(build((1, side, side), 10, **options)(x))


def precoded(build):
    return summary(build(SHAPE, 10, size=4)(gl.defenses.join(X, torch.ones(2, 4))))


SOME, DIRECTION = gl.GaussianNoise(0.5), gl.Direction(10.0)
ROUNDED = Rounded(LBFGS(30), (0.3, 0.1), corner=0.02)
# One line for each class or constructor that takes part in a row.
CASES = {
    gl.Client: lambda: climb(SOME),
    gl.NoDefense: lambda: climb(gl.NoDefense(), SOME),
    gl.GaussianNoise: lambda: climb(SOME),
    gl.LaplaceNoise: lambda: climb(gl.LaplaceNoise(0.1)),
    gl.RandomMask: lambda: climb(gl.RandomMask(0.5, SOME)),
    gl.LearnedNoise: lambda: climb(gl.LearnedNoise((0.1, 0.2, 0.3, 0.4))),
    gl.MagnitudePruning: lambda: climb(gl.MagnitudePruning(0.9), SOME),
    gl.Soteria: lambda: climb(gl.Soteria("dense2", 0.5), SOME),
    gl.ATS: lambda: climb(SOME, transform=gl.ATS("1-9-4+13")),
    Latent: lambda: latents(),
    VariationalLoss: variational,
    gl.Direction: lambda: climb(SOME, DIRECTION),
    gl.LayerDirections: lambda: climb(SOME, gl.LayerDirections(10.0)),
    gl.Uninformative: lambda: climb(SOME, gl.Uninformative(), gl.TotalVariation(1.0)),
    gl.UnknownMask: lambda: climb(gl.RandomMask(0.5, SOME), gl.UnknownMask(0.5, SOME)),
    gl.Ignore: lambda: climb(SOME, gl.Ignore("dense2", SOME)),
    gl.Survivors: lambda: climb(gl.MagnitudePruning(0.5), gl.Survivors("dense1", SOME)),
    gl.Censored: lambda: climb(gl.MagnitudePruning(0.9), gl.Censored(SOME)),
    gl.LayerWeights: lambda: climb(SOME, gl.LayerWeights((1.0, 3.0), SOME)),
    gl.Flat: lambda: climb(SOME, prior=gl.Flat()),
    gl.TotalVariation: lambda: climb(SOME, prior=gl.TotalVariation(2.0)),
    gl.Box: lambda: climb(SOME, prior=gl.Box()),
    gl.BoxPenalty: lambda: climb(SOME, prior=gl.BoxPenalty(400.0)),
    gl.Sum: lambda: climb(SOME, prior=gl.Sum((gl.TotalVariation(2.0), gl.Box()))),
    gl.GaussianMixture: lambda: climb(SOME, prior=gl.GaussianMixture.fit(TRAIN, 2, blur=0.1)),
    gl.Learned: lambda: climb(SOME, prior=gl.Learned(denoiser(), "digits", weight=10.0)),
    gl.priors.Denoiser: lambda: summary(denoiser()(X, torch.full((2,), 0.3))),
    Joint: lambda: latents(),
    Known: lambda: latents(Known(0.5)),
    ReadOff: lambda: latents(ReadOff()),
    StandardNormal: lambda: latents(StandardNormal()),
    FreshLatents: lambda: latents(ball=FreshLatents(2, 4)),
    gl.Ball: lambda: climb(SOME, ball=gl.Ball(0.5, 2)),
    gl.Adam: lambda: climb(SOME, optimizer=gl.Adam(5, 0.2, 0.9, (0.5,), signed=True, patience=2)),
    LBFGS: lambda: climb(SOME, optimizer=LBFGS(6, memory=3)),
    Rounded: lambda: climb(SOME, optimizer=ROUNDED),
    Race: lambda: climb(SOME, optimizer=Race((ROUNDED, gl.Adam(30, signed=True)), share=0.4)),
    Features: lambda: asked(gl.Client(mlp()), Features("dense1", optimizer=LBFGS(5))),
    gl.Adversary: lambda: climb(SOME, temperature=10.0),
    gl.Amortised: lambda: asked(
        gl.Client(mlp(), SOME),
        gl.Amortised(gl.Client(mlp()), TRAIN, 0.1, 1.0, rank=4, steps=3, width=8, batch_size=8),
    ),
    gl.Unrolled: lambda: asked(
        gl.Client(mlp(), SOME),
        gl.Unrolled(
            gl.Client(mlp()),
            gl.GaussianNoise,
            TRAIN,
            0.1,
            1.0,
            stages=2,
            steps=3,
            width=4,
            batch_size=8,
        ),
    ),
    PosteriorSamples: lambda: sampled(Mean()),
    Mean: lambda: sampled(Mean()),
    Sample: lambda: sampled(Sample(1)),
    MostWithin: lambda: sampled(MostWithin(3.0)),
    Langevin: lambda: sampled(Mean(), Langevin(4, rate=0.2, look=2)),
    FirstLayer: lambda: asked(gl.Client(mlp()), FirstLayer()),
    ExactAnswer: lambda: asked(
        gl.Client(mlp(), SOME), ExactAnswer(gl.Client(mlp(), SOME), FinitePrior(X, Y), 0.0)
    ),
    FinitePrior: lambda: FinitePrior(X, Y).log_prob(Y).exp().flatten().tolist(),
    UndoATS: lambda: undone(Averaged()),
    Averaged: lambda: undone(Averaged()),
    Picked: lambda: undone(Picked()),
    gl.priors.LowRankGaussian: lambda: undone(Averaged()),
    gl.models.cnn: lambda: built(gl.models.cnn),
    gl.models.cnn2: lambda: built(gl.models.cnn2),
    gl.models.convbig: lambda: built(gl.models.convbig),
    gl.models.lenet: lambda: built(gl.models.lenet),
    gl.models.convnet: lambda: built(gl.models.convnet, side=9, width=4),
    gl.models.mlp: lambda: built(gl.models.mlp),
    precode_ffn: lambda: precoded(precode_ffn),
    precode_lenet: lambda: precoded(precode_lenet),
    gl.train.checkpoints: trained,
}
# Public classes that no row is named after: what defenses return, what attacks answer, and parts
# of networks, which are named by the call that made them.
UNNAMED = {
    "Distribution", "Normal", "Laplace", "MaskedAtRandom", "PointMass", "Rescaled",
    "Transformation", "Reconstruction", "Precode", "Bottleneck", "UNet", "Mixture",
    "Density", "Rest", "Fit", "Moment", "Attack", "Prior", "Transform", "InputDefense",
}  # fmt: skip


def entry(subject):
    """What the table holds of a class: its revision, its defaults and what it computes."""
    if isinstance(subject, type):
        revision = int(describe(subject)[-1])
    else:
        revision = gl.train.REVISION if subject is gl.train.checkpoints else gl.models.REVISION
    parts = fields(subject) if is_dataclass(subject) else ()
    defaults = {f.name: getattr(f.default, "__qualname__", repr(f.default)) for f in parts
                if f.default is not MISSING}  # fmt: skip
    return {"revision": revision, "defaults": defaults, "values": CASES[subject]()}


@pytest.mark.parametrize("subject", CASES, ids=lambda s: s.__name__)
def test_values_are_those_of_the_revision(subject):
    name, known = subject.__name__, json.loads(TABLE.read_text())
    assert name in known, f"{name} is not in {TABLE.name}: write it with {COMMAND}"
    now, then = entry(subject), known[name]
    same = now["values"] == pytest.approx(then["values"], abs=ROUNDING)
    # A field at its default is left out of names, so another default is another value.
    same = same and then["defaults"].items() <= now["defaults"].items()
    raised = now["revision"] > then["revision"]
    assert same or raised, (
        f"values of {name} changed: raise {name}.revision (of a constructor: REVISION in its "
        f"module), then write the file anew with {COMMAND}"
    )
    assert now["revision"] == then["revision"], f"write the file anew with {COMMAND}"


def test_every_class_that_takes_part_in_a_row_has_a_line():
    faces = (gl.defenses, gl.priors, gl.attacks)
    public = {name: getattr(face, name) for face in faces for name in face.__all__}
    kinds = {name for name, value in public.items() if isinstance(value, type)
             and (is_dataclass(value) or issubclass(value, nn.Module))}  # fmt: skip
    missing = kinds - {subject.__name__ for subject in CASES} - UNNAMED
    assert not missing, f"give {sorted(missing)} a line in CASES, then {COMMAND}"


if __name__ == "__main__" and "--write" in sys.argv:
    table = {subject.__name__: entry(subject) for subject in CASES}
    for line in table.values():
        line["values"] = [round(v, 6) for v in line["values"]]
    TABLE.write_text(json.dumps(table, indent=1) + "\n")
