"""Committed records are what the committed code computes: a few rows of each, recomputed."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import reprs
import torch
from torch import nn

import gradleak as gl
from gradleak.experiment import Exported, Records

RESULTS = Path(__file__).parents[2] / "book" / "results"
TIMINGS = sorted(
    p for what in ("bench", "compiled", "reach") for p in RESULTS.glob(f"{what}-*.csv")
)
ACCURACIES = sorted(RESULTS.glob("*-accuracy.csv"))
SEARCHES = sorted(RESULTS.glob("*-search.csv"))
OTHERS = sorted([*RESULTS.glob("*-answers.csv"), *RESULTS.glob("*-identified.csv")])
FILES = sorted(set(RESULTS.glob("*.csv")) - {*TIMINGS, *ACCURACIES, *SEARCHES, *OTHERS})
# Another processor or batch rounds differently, and an attack's steps let that grow, most where
# there is hardly any noise (book/gotchas.md): single rows may part, most of them may not.
MEDIAN_DB, ONE_ROW_DB, NEARLY_NO_NOISE_DB = 0.5, 1.5, 6.0
RETRAINED = (0, 10)  # training steps after which networks are attacked again; more take too long
DENOISER = RESULTS / "denoiser-mnist.safetensors"  # what the chapter on priors trained
# Priors that would have to be fitted again: any but total variation and that denoiser's.
UNKNOWN = r"GaussianMixture|Learned\(name='(?!mnist')"


def learned(name, **settings):
    """The prior that a row names; its denoiser is committed."""
    return gl.Learned(gl.priors.read_denoiser(DENOISER), name, **settings)


VARIABLES = {name: getattr(part, name) for part in (gl.defenses, gl.attacks, gl.priors, gl)
             for name in part.__all__ if isinstance(getattr(part, name), type)}  # fmt: skip
VARIABLES |= {"inf": math.inf, "Learned": learned}


def network(row, images):
    """The untrained network that a row names."""
    build = getattr(gl.models, row.model, None) or getattr(gl.defenses, row.model)
    name = "width" if row.model == "convnet" else "size"
    options = {name: int(row.width)} if row.get("width", 0) else {}
    if row.get("activation"):
        activations = {"ReLU": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
        options["activation"] = activations[row.activation]
    seed = row.get("model_seed", row.get("seed"))
    return build(images.shape, images.classes, seed=seed, **options)


def trial(row, which) -> gl.Trial:
    """The trial that a row describes, with these images."""
    defense, belief, prior, optimizer = (
        reprs.made(row[name], VARIABLES)
        for name in ("true_defense", "belief", "prior", "optimizer")
    )
    try:
        images = gl.data.load(row.dataset, row.split).take(which)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    model, seed = network(row, images), row.get("model_seed", row.get("seed"))
    transform = row.get("transform")  # absent, or read as missing, where there was none
    transform = reprs.made(transform, VARIABLES) if isinstance(transform, str) else None
    client = gl.Client(model, defense, transform=transform)
    if row.train_step:
        train = gl.data.load(row.dataset, "train")
        held = defense if "Noise(" in row.true_defense else gl.NoDefense()
        held = replace(client, defense=held)
        lr = row.get("lr", 0.1)
        (checkpoint,) = gl.train.checkpoints(held, train, [row.train_step], lr=lr, seed=seed)
        client = replace(client, model=checkpoint.model)
    ball = row.get("ball")  # absent, or read as missing, where there was none
    adversary = gl.Adversary(
        gl.Client(client.model, belief), prior, optimizer, float(row.temperature),
        reprs.made(ball, VARIABLES) if isinstance(ball, str) else None, int(row.restarts),
    )  # fmt: skip
    return gl.Trial(client, adversary, images, {}, seed=int(row.seed))


def samples(table):
    """Three random rows of each table that a page makes of the records, or one batch."""
    # The networks with a bottleneck are trained in a way of their own (notebooks/05_precode.py).
    steps = (0,) if "activation" in table else RETRAINED
    here = table[table.train_step.isin(steps) & ~table.prior.str.contains(UNKNOWN)]
    parts = [name for name in ("p_x", "layers", "precision", "lr") if name in table]
    count = 1 if "precision" in table else 3
    return here.groupby(["split", "train_step", *parts]).sample(count, random_state=0)


def together(row, table):
    """The images to compute a row with: where inputs are rounded, those of its batch.

    A batch of another size differs by 1e-7, which rounding to 8 bits turns into 1e-2 here and
    there, and that decides which of two optima a climb without noise ends in.
    """
    if "precision" not in table:
        return [row["index"]]
    arm = ["defense", "precision", "seed"]
    return table[(table[arm] == row[arm]).all(axis=1)]["index"].tolist()


@pytest.mark.parametrize(
    "text",
    ["print(1)", "__import__('os').getcwd()", "GaussianNoise.__mro__", "GaussianNoise(open('x'))",
     "[c for c in ()]", "(lambda: 1)()", "f'{1}'", "GaussianNoise", "Box()(1)", "1 + 1", "exit",
     "GaussianNoise(*[1])", "GaussianNoise(**{'scale': 1})"],
)  # fmt: skip
def test_a_cell_of_a_record_file_runs_no_code(text):
    if text == "GaussianNoise":
        assert reprs.made(text, VARIABLES) is gl.GaussianNoise
        return
    with pytest.raises((ValueError, TypeError)):
        reprs.made(text, VARIABLES)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_reprs_in_records_are_those_of_what_they_say(path):
    table = Exported(path).read()
    for column in {"true_defense", "belief", "optimizer"} & set(table):
        for text in table[column].dropna().unique():
            assert repr(reprs.made(text, VARIABLES)).startswith(text.partition("(")[0])


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_records_are_what_the_code_computes(path, tmp_path):
    table = Exported(path).read()
    errors, nearly_no_noise = [], []
    for _, row in samples(table).iterrows():
        with gl.device.precision.MatrixInputs(row.get("precision", "float32")):
            held = trial(row, together(row, table))
            found = gl.experiment.run([held], Records(tmp_path, row.id)).set_index("index")
        errors.append(abs(found.psnr[row["index"]] - row.psnr))
        noisy = "Noise(" in row.true_defense and "precision" not in table
        nearly_no_noise.append(not noisy or row.get("scale", 0) < 0.05)
    assert np.median(errors) < MEDIAN_DB
    limits = np.where(nearly_no_noise, NEARLY_NO_NOISE_DB, ONE_ROW_DB)
    assert (errors < limits).all(), (errors, limits)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_records_know_where_they_come_from(path):
    table, facts = Exported(path).read(), Exported(path).facts()
    assert facts["rows"] == len(table) == len(table.drop_duplicates())
    assert facts["command"].startswith("gradleak run ")
    assert {"hardware", "date", "version", "torch", "seconds", "dataset"} <= set(facts)
    assert table.psnr.map(math.isfinite).all()


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_tuning_never_sees_an_evaluation_image(path):
    table = Exported(path).read()
    if set(table.split) == {"test"}:
        assert "weight" not in table, "nothing was tuned here"
        return
    assert set(table.split) == {"train", "test"}
    tuning, cell = table[table.split == "train"], ["defense", "adversary"]
    cell += [name for name in ("train_step", "p_x", "layers", "lr") if name in table]
    trials = [set(zip(t.weight, t.temperature, strict=True)) for _, t in tuning.groupby(cell)]
    if path.stem.startswith("prior-"):  # weights of different priors are different things
        trials = [len(each) for each in trials]
    assert all(each == trials[0] for each in trials), "every adversary gets the same trials"


@pytest.mark.slow
def test_stored_pictures_are_the_rows_they_belong_to():
    with_pictures = [path for path in FILES if path.with_suffix(".npz").exists()]
    assert with_pictures
    for path in with_pictures:
        table = Exported(path).read()
        kept = table[table.id.isin(list(Exported(path).pictures()))]
        kept = kept[kept.split == "test"]
        kept = kept[kept["index"] < kept["index"].min() + 2].sample(4, random_state=1)
        try:
            x = torch.cat([gl.data.batch(r.dataset, [r["index"]])[0] for _, r in kept.iterrows()])
        except FileNotFoundError as error:
            pytest.skip(str(error))
        found = gl.psnr(Exported(path).images(kept.id), x)
        score = "psnr_x" if "psnr_x" in kept else "psnr"  # against the private image
        assert found.tolist() == pytest.approx(kept[score].tolist(), abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("path", ACCURACIES, ids=lambda p: p.stem)
def test_accuracies_are_what_the_code_computes(path):
    table, facts = Exported(path).read(), Exported(path).facts()
    assert facts["rows"] == len(table) == len(table.drop_duplicates())
    row = table[table.train_step == 0].iloc[0]
    try:
        test = gl.data.load(row.dataset, row.split)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    model = network(row, test)
    assert gl.train.accuracy(model, test) == pytest.approx(row.accuracy, abs=2e-3)


@pytest.mark.parametrize("path", TIMINGS, ids=lambda p: p.stem)
def test_timings_know_where_they_come_from(path):
    facts = Exported(path).facts()
    assert facts["command"].startswith("gradleak bench --device ")
    assert {"hardware", "date", "version", "torch", "seconds"} <= set(facts)
