"""What a toy clone contains: its chapters, their parameters, the tables made of them."""

import dataclasses

import pytest
from toy import edit

from gradleak import book
from gradleak.book.chapter import assignments, summary
from gradleak.book.docstrings import to_rst
from gradleak.book.pages import duration, runs_page, table
from gradleak.book.record import Run


def test_root_is_found_from_below(clone):
    assert book.root(clone / "book") == clone


def test_no_clone_is_a_clear_error(tmp_path):
    with pytest.raises(book.BookError, match="go to your clone"):
        book.root(tmp_path)


def test_chapter_is_found_by_either_name(clone):
    assert book.find("toy", clone) == book.find("01_toy", clone) == book.chapters(clone)[0]


def test_unknown_chapter_names_the_near_miss(clone):
    with pytest.raises(book.BookError, match=r"unknown chapter 'toi'.*'toy'"):
        book.run("toi")


def test_parameters_have_type_default_and_help(clone):
    parameters = book.parameters(book.find("toy", clone))
    assert parameters["steps"] == book.Parameter("steps", 3, "int", "number of steps")
    assert parameters["scales"].default == [0.1, 0.2]


def test_summary_skips_the_fences_of_a_box(clone):
    assert summary(book.find("toy", clone)) == ("A toy", "One sum, computed twice.")


def test_chapter_without_parameters_cell(clone):
    edit(clone / "notebooks" / "01_toy.py", ' tags=["parameters"]', "")
    with pytest.raises(book.BookError, match="no cell tagged `parameters`"):
        book.run("toy")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("steps=12", 12),
        ("defense=laplace", "laplace"),
        ("defense=0.1", "0.1"),
        ("scales=[1, 0.5]", [1, 0.5]),
        ("results=", ""),
        ("profile = quick", "quick"),
    ],
)
def test_values_are_read_as_the_type_of_their_parameter(clone, text, value):
    (read_value,) = assignments(book.find("toy", clone), [text]).values()
    assert read_value == value


def test_floats_and_optional_values(clone):
    new = "rate: float = 1.0\nlimit: int | None = None"
    edit(clone / "notebooks" / "01_toy.py", 'defense = "gaussian"', new)
    edit(clone / "notebooks" / "01_toy.py", "{defense}", "{rate}")
    chapter = book.find("toy", clone)
    assert assignments(chapter, ["rate=1e-3"]) == {"rate": 0.001}
    assert assignments(chapter, ["rate=2", "limit=7"]) == {"rate": 2.0, "limit": 7}
    assert assignments(chapter, ["limit=null"]) == {"limit": None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz=5", "unknown parameter of toy 'stepz'.*'steps'"),
        ("steps=many", "steps wants type int, such as 3"),
        ("scales=0.1", "scales wants type list"),
        ("steps", "name=value"),
    ],
)
def test_wrong_values_are_refused(clone, text, message):
    with pytest.raises(book.BookError, match=message):
        assignments(book.find("toy", clone), [text])


def test_docstrings_are_plain_sentences():
    lines = ["|x| of `x_` and (N, *shape):", "", "    a * b", "", "loss: any_ one,", "    or two"]
    assert to_rst(lines) == [
        r"\|x\| of ``x_`` and (N, \*shape):",
        "",
        "::",
        "",
        "    a * b",
        "",
        r"- **loss**: any\_ one,",
        "  or two",
        "",
    ]


def test_each_parameter_of_a_docstring_is_an_item():
    found = to_rst(["steps: how many. lr: how far", "in pixels. As Kingma says: slow."])
    assert found[:4] == [
        "- **steps**: how many.",
        "- **lr**: how far",
        "  in pixels. As Kingma says: slow.",
        "",
    ]


def test_durations_and_tables():
    assert [duration(s) for s in (0.2, 24, 370, 7500)] == ["1 s", "24 s", "6 min 10 s", "2 h 5 min"]
    assert table(("a",), [("x|y",)]) == "| a |\n| --- |\n| x\\|y |\n"


def test_a_run_that_found_its_records_says_how_long_they_took():
    ran = Run(
        "01_toy", "quick", "cpu", {}, "", 55.0, "2026-01-01", "abacus", "3", "2", records=782.0
    )
    page = runs_page([ran], [dataclasses.replace(ran, records=None)])
    here, published = (line for line in page.splitlines() if "01_toy" in line)
    assert "| 55 s | 13 min 2 s | 2026-01-01 | defaults |" in here
    assert "| 55 s |  | 2026-01-01 | defaults |" in published
