import ast
import shlex
from pathlib import Path

import pandas as pd
import pytest
import reprs
from hypothesis import given
from hypothesis import strategies as st

import gradleak as gl
from gradleak import book
from gradleak.book.values import assignments
from gradleak.experiment import Exported
from gradleak.experiment.page import command, defaults, page, said, sizes
from gradleak.metrics import paired

REPO = Path(__file__).parents[2]
CHAPTERS = {chapter.name: chapter for chapter in book.chapters(REPO)}
PROFILES = {"smoke": dict(dataset="digits", images=6, shown=4, tuning=2, steps=3, restarts=1,
                          train_steps=[0, 10])}  # fmt: skip
TIMED = ("runs", "bench-", "compiled-", "reach-")
COMMITTED = [Exported(path.with_suffix(".csv")) for path in sorted(REPO.glob("book/results/*.json"))
             if not path.stem.startswith(TIMED)]  # fmt: skip


@pytest.fixture(autouse=True)
def _in_notebooks(monkeypatch):
    monkeypatch.chdir(REPO / "notebooks")


def soteria(**values):
    """A page of this chapter with these parameters."""
    return page("soteria", PROFILES, defaults("soteria") | {"device": "cpu"} | values)


def test_what_is_given_takes_the_place_of_the_profiles_sizes():
    found = sizes("smoke", PROFILES, images=3, steps=0, train_steps=[20, 0], rate=0.0)
    assert (found.images, found.shown, found.steps, found.rate) == (3, 3, 3, 0.0)
    assert found.train_steps == [0, 20]


@pytest.mark.parametrize("steps", [0, 1, 40])
def test_the_rate_of_a_pages_climb_falls_to_a_twentieth(tmp_path, steps):
    profiles = {"smoke": PROFILES["smoke"] | {"steps": steps}}
    given = defaults("soteria") | {"device": "cpu", "results": str(tmp_path)}
    climb = page("soteria", profiles, given).search
    assert climb.steps == steps
    assert climb.rate(0) == 0.1
    assert climb.rate(steps) == pytest.approx(0.1 if steps == 0 else 0.005)


@pytest.mark.parametrize("bad", [{"images": -1}, {"train_steps": [3, -1]}])
def test_negative_sizes_are_refused(bad):
    with pytest.raises(ValueError, match="must not be negative"):
        sizes("smoke", PROFILES, **bad)


def test_wrong_profiles_and_data_sets_are_refused():
    with pytest.raises(ValueError, match=r"unknown profile 'smok'.*'smoke'"):
        soteria(profile="smok")
    with pytest.raises(ValueError, match=r"unknown dataset 'digit'.*'digits'"):
        soteria(dataset="digit")


@pytest.mark.parametrize("name", CHAPTERS)
def test_defaults_are_those_of_the_parameters_cell(name):
    known = {p.name: p.default for p in book.parameters(CHAPTERS[name]).values()}
    assert defaults(name) == known


def test_a_chapter_takes_each_of_its_parameters_and_no_other_name(tmp_path):
    here = soteria(results=str(tmp_path), rate=0.5, images=3, other="name")
    assert (here.size.images, here.size.rate, hasattr(here.size, "other")) == (3, 0.5, False)
    assert here.command.split()[-4:] == ["-p", "rate=0.5", "-p", "images=3"]


def test_a_notebook_without_its_script_takes_what_is_plain(tmp_path, monkeypatch):
    values = defaults("soteria") | {"device": "cpu", "images": 3, "results": str(tmp_path)}
    beside = page("soteria", PROFILES, values)
    monkeypatch.chdir(tmp_path)
    alone = page("soteria", PROFILES, values | {"In": [""], "_i1": "", "gl": gl, "PROFILES": {}})
    assert vars(alone.size) == vars(beside.size)
    assert "-p images=3" in alone.command


@pytest.mark.slow
@given(
    st.integers(0, 9), st.floats(0, 0.999), st.lists(st.integers(0, 99), max_size=3),
    st.sampled_from(["convbig", "lenet"]),
)  # fmt: skip
def test_a_command_gives_back_its_parameters(images, rate, train_steps, network):
    own = dict(images=images, rate=rate, train_steps=train_steps, network=network)
    words = shlex.split(command("soteria", "quick", own))
    assert words[:5] == ["gradleak", "run", "soteria", "--profile", "quick"]
    assert set(words[5::2]) <= {"-p"}
    found = defaults("soteria") | assignments(CHAPTERS["soteria"], words[6::2])
    assert {k: found[k] for k in own} == own


def test_differences_in_words():
    pair = paired([1.0, 2.0, 3.5], [0.0, 0.5, 3.0])
    assert said({"a − b": {1: pair}}, "a − b", 1).startswith("+1.0 dB [")
    assert said({"a − b": {1: pair}}, "a − b", 2) == said({}, "a − b", 1) == "not run here"


def test_floors_are_what_needs_no_gradient(tmp_path):
    here = soteria(results=str(tmp_path))
    found = here.floors(alone=[1.0, 2.0, 3.0])
    x, mean = here.evaluated.x, here.train.x.mean(0)
    assert found["mid-grey"].mean == pytest.approx(gl.psnr(torch_like(x, 0.5), x).mean().item())
    expected = gl.psnr(mean.expand_as(x), x).mean().item()
    assert found["mean image"].mean == pytest.approx(expected, rel=1e-5)
    assert found["alone"].mean == 2.0


def test_accuracies_are_measured_once(tmp_path, monkeypatch):
    here = soteria(results=str(tmp_path))
    networks = [({"model_seed": s}, gl.models.mlp((1, 8, 8), 10, (16,), seed=s)) for s in (0, 1)]
    table = here.accuracies(networks, 50, model="mlp")
    few = here.test.take(range(50))
    assert table.accuracy.tolist() == [gl.train.accuracy(net, few) for _, net in networks]
    monkeypatch.setattr(gl.train, "accuracy", lambda *_: pytest.fail("was measured already"))
    again = here.accuracies(networks[1:], 50, model="mlp")
    assert again.accuracy.tolist() == table.accuracy.tolist()[1:]
    assert list(again) == ["id", "dataset", "split", "images", "model", "model_seed", "accuracy",
                           "seconds"]  # fmt: skip


def torch_like(x, value):
    return x * 0 + value


def test_accuracies_are_of_as_many_images_as_were_asked_for(tmp_path):
    here = soteria(images=2, results=str(tmp_path))
    network = gl.models.mlp(here.test.shape, here.test.classes)
    for most, images in ((7, here.test.take(range(7))), (0, here.test), (10**6, here.test)):
        (row,) = here.accuracies([({"arm": str(most)}, network)], most).itertuples()
        assert row.images == len(images)
        assert row.accuracy == gl.train.accuracy(network, images)


def test_what_is_not_among_committed_rows_is_left_out_with_a_word(capsys):
    here = soteria()
    shown = []
    here.elsewhere(shown.append, rate=0.123)
    assert not shown
    assert "Markdown" in capsys.readouterr().out
    here.elsewhere(shown.append, rate=0.8, split=["test"])
    assert len(shown) == 2


def profiles(chapter):
    """The PROFILES of a chapter's script."""
    known = {"dict": dict, "range": range}
    for line in ast.parse(chapter.source.read_text()).body:
        name = ast.unparse(line.targets[0]) if isinstance(line, ast.Assign) else ""
        first = name in ("SCALES", "PROFILES") and "PROFILES" not in known
        if first and (name == "PROFILES" or isinstance(line.value, ast.List)):
            shared = ast.unparse(line.value) == "gl.experiment.Comparison.PROFILES"
            known[name] = (gl.experiment.Comparison.PROFILES if shared
                           else reprs.made(ast.unparse(line.value), known))  # fmt: skip
    return known["PROFILES"]


@pytest.mark.parametrize("chapter", CHAPTERS.values(), ids=lambda c: c.stem)
def test_every_chapter_has_the_three_profiles(chapter):
    assert list(profiles(chapter)) == ["smoke", "quick", "paper"]


@pytest.mark.parametrize("records", COMMITTED, ids=lambda r: r.name)
def test_committed_commands_make_their_rows(records):
    """The command beside the rows names the chapter, sizes and settings that are in the rows."""
    rows, facts = records.read(), records.facts()
    if "names" not in facts:
        pytest.skip("of an older layout: gradleak carry gives it names and its true command")
    for words in map(shlex.split, facts["command"].split(" && ")):
        assert words[:2] == ["gradleak", "run"]
        chapter, profile = CHAPTERS[words[2]], words[4]
        assert records.name.split("-")[1] == profile
        own = assignments(chapter, words[6::2])
        size = sizes(profile, profiles(chapter), **own)
        assert size.dataset == facts["dataset"]
        if "optimizer" in rows and not records.name.endswith("-answers"):  # of several pages
            compare(size, rows)


def compare(size, rows):
    told = vars(size)
    evaluated = rows[rows.split == "test"]
    most = evaluated.groupby("optimizer")["index"].nunique().max()
    assert most == told.get("searched", size.images)
    if "way" in evaluated:  # a page that compares climbs
        longest = evaluated[evaluated.train_step == 0].groupby("way").evaluations.max()
        lengths = {"signed Adam": size.steps * 3 // 2, "rounded L-BFGS": size.steps}
        assert longest.to_dict() == lengths
        each = zip(evaluated.evaluations, evaluated.optimizer, strict=True)
        assert all(f"(steps={n}," in optimizer for n, optimizer in each)
    else:
        assert f"Adam(steps={size.steps}," in evaluated.optimizer.mode()[0]
    steps = {t for name in ("train_steps", "slow_steps") for t in told.get(name, [])}
    steps = set(told["later"]) if "later" in told else steps
    if steps:
        assert set(evaluated.train_step) - {0} == steps - {0}
    if "scales" in told and isinstance(told["scales"], list) and "p_x" not in rows:
        assert set(evaluated.scale) <= set(told["scales"])
    if "tuning" in told and (rows.split == "train").any():
        assert rows[rows.split == "train"]["index"].nunique() == size.tuning
    assert pd.notna(evaluated.psnr).all()
