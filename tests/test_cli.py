"""The command line, on a toy clone."""

import pytest
from click.testing import CliRunner

from gradleak import book
from gradleak.book import chapter as chapter_module
from gradleak.cli import main


def call(*words):
    return CliRunner().invoke(main, words)


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
        (["run", "toy", "--profile", "fast"], "'fast' is not one of"),
        (["publish", "toi"], "unknown chapter 'toi'"),
        (["publish"], "has no quick run"),
        (["publish", "toy", "--records"], "has no quick run"),
        (["publish", "--records"], "Name the chapters"),
        (["book", "--published"], "has no published outputs"),
    ],
)
def test_errors_are_one_short_message(clone, words, message):
    result = call(*words)
    assert result.exit_code != 0
    assert message in result.output
    assert "Traceback" not in result.output


def test_outside_a_clone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in (["list"], ["run", "--help"], ["run", "toy"], ["book"], ["publish"]):
        assert "go to your clone" in call(*words).output


def test_missing_extra_says_how_to_install_it(clone, monkeypatch):
    def refuse(name):
        raise ImportError(name)

    monkeypatch.setattr(chapter_module.importlib, "import_module", refuse)
    assert "pip install -e '.[book]'" in call("list").output


def test_results_folder_is_seen_from_where_the_command_was_typed(clone):
    call("run", "toy", "-p", "results=mine")
    facts = (clone / "_build" / "executed" / "smoke" / "01_toy.json").read_text()
    assert str(clone / "mine") in facts


def test_book_prints_the_path_of_the_site(clone):
    result = call("book")
    assert result.exit_code == 0, result.output
    assert f"Open {clone / '_build' / 'site' / 'smoke' / 'html' / 'index.html'}" in result.output
