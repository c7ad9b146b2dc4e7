"""The command line, on a toy clone."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import toy
from click.testing import CliRunner

from gradleak import book
from gradleak.book import chapter as chapter_module
from gradleak.cli import main


def call(*words):
    return CliRunner().invoke(main, words)


HEAVY = {"torch", "torchvision", "pandas", "scipy", "skimage", "statsmodels", "matplotlib"}
TOOLS = {"jupytext", "nbformat", "papermill"}
COMMAND = "import sys; from gradleak.cli import main; main(sys.argv[1:], standalone_mode=False)"


@pytest.mark.parametrize(
    ("code", "words", "heavy"),
    [
        ("import gradleak", [], HEAVY | TOOLS),
        ("import gradleak; gradleak.__version__", [], HEAVY | TOOLS),
        (COMMAND, ["--help"], HEAVY | TOOLS),
        (COMMAND, ["--version"], HEAVY | TOOLS),
        (COMMAND, ["list"], HEAVY),
        (COMMAND, ["run", "--help"], HEAVY),
        (COMMAND, ["run", "theory", "--help"], HEAVY),
    ],
)
def test_looking_loads_no_heavy_library(code, words, heavy):
    code += "; import sys; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(toy.REPO)}
    ran = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=toy.REPO, env=environment,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    loaded = ran.stdout.splitlines()[-1].split()
    assert "gradleak" in loaded
    assert heavy.isdisjoint(loaded)


def test_version():
    assert call("--version").output == "gradleak 0.1.0\n"


@pytest.mark.book
def test_list_shows_title_sentence_and_times(clone):
    book.run("toy")
    said = call("list").output
    assert "toy: A toy\n  One sum, computed twice.\n  took: smoke " in said
    assert "Profiles: smoke" in said


def test_run_help_lists_the_parameters_of_the_chapter(clone):
    said = call("run", "toy", "--help").output
    assert "steps = 3             number of steps" in said
    assert "--profile [smoke|quick|paper]" in said
    assert "profile = " not in said


def test_run_group_lists_chapters(clone):
    assert "toy  A toy" in call("run", "--help").output


@pytest.mark.book
def test_run_says_where_the_notebook_is_and_how_to_see_it(clone):
    result = call("run", "toy", "--profile", "quick", "-p", "steps=5", "-p", "defense=laplace")
    assert result.exit_code == 0
    assert str(clone / "_build" / "executed" / "quick" / "01_toy.ipynb") in result.output
    assert "gradleak book --profile quick" in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "toi"], "unknown chapter 'toi'; did you mean 'toy'?"),
        (["run", "toy", "-p", "stepz=1"], "did you mean 'steps'?"),
        (["run", "toy", "-p", "steps=x"], "steps wants type int"),
        (["run", "toy", "-p", "steps=-1"], "steps must be at least 0, got -1"),
        (["run", "toy", "--profile", "fast"], "'fast' is not one of"),
        (["bench", "--rounds", "0"], "0 is not in the range x>=1"),
        (["bench", "--rounds", "-1", "--compiled"], "-1 is not in the range x>=1"),
        (["publish", "toi"], "unknown chapter 'toi'"),
        (["publish"], "has no quick run"),
        (["publish", "toy", "--records"], "has no quick run"),
        (["publish", "--records"], "Name the chapters"),
        (["book", "--published"], "has no published outputs"),
        (["book"], "has no published outputs"),
        (["book", "--published", "--profile", "smoke"], "not both"),
    ],
)
def test_errors_are_one_short_message(clone, words, message):
    result = call(*words)
    assert result.exit_code != 0
    assert message in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("words", [["bench", "--rounds", "1"], ["bench", "--compiled"]])
def test_a_device_that_is_not_there_is_one_short_message(monkeypatch, words):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = call(*words, "--device", "cuda")
    assert result.exit_code == 2
    assert "Invalid value for '--device'" in result.output


def test_bench_without_its_images_measures_the_rest(tmp_path, monkeypatch):
    def none(name, split):
        raise FileNotFoundError("nowhere")

    monkeypatch.setattr("gradleak.data.load", none)
    monkeypatch.setattr("gradleak.bench.measure.run", lambda *given: iter([{"rounds": 1}]))
    path = tmp_path / "bench.csv"
    result = call("bench", "--device", "cpu", "--output", str(path))
    assert result.exit_code == 0, result.output
    assert "No seconds to a PSNR: nowhere" in result.output
    assert [file.name for file in tmp_path.glob("*.csv")] == ["bench.csv"]


def test_outside_a_clone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in (["list"], ["run", "--help"], ["run", "toy"], ["book"], ["publish"]):
        assert "go to your clone" in call(*words).output


def test_missing_extra_says_how_to_install_it(clone, monkeypatch):
    def refuse(name):
        raise ImportError(name)

    monkeypatch.setattr(chapter_module, "importlib", SimpleNamespace(import_module=refuse))
    assert "pip install -e '.[book]'" in call("list").output


@pytest.mark.book
def test_results_folder_is_seen_from_where_the_command_was_typed(clone):
    call("run", "toy", "-p", "results=mine")
    facts = (clone / "_build" / "executed" / "smoke" / "01_toy.json").read_text()
    assert str(clone / "mine") in facts


@pytest.mark.book
def test_book_shows_what_is_published_and_checks_every_chapter(clone):
    book.run("toy", "quick")
    book.publish("quick")
    result = call("book")
    assert result.exit_code == 0, result.output
    shown, toys = (clone / "_build" / "site" / p / "html" for p in ("published", "smoke"))
    lines = result.output.splitlines()
    assert f"Open {shown / 'index.html'}" in lines
    assert lines.index(f"Open {shown / 'index.html'}") < lines.index("01_toy: runs (smoke)")
    assert str(shown / "index.html") in lines[-1]
    assert str(toys / "index.html") in lines[-1]
    page = "notebooks/01_toy.html"
    assert 'admonition-title">A toy' in (toys / page).read_text()
    assert 'admonition-title">A toy' not in (shown / page).read_text()

    toy.edit(clone / "notebooks" / "01_toy.py", "total = seed", "total = seeed")
    failed = call("book", "--profile", "smoke")
    assert failed.exit_code != 0
    assert "NameError" in failed.output
