"""Tables of parameters and of run times."""

import dataclasses
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from gradleak import book
from gradleak.book.pages import duration, runs_page, table
from gradleak.book.record import Run, executed, last_run, published_file, runs_published
from gradleak.files import DamagedError


def test_durations_and_tables():
    assert [duration(s) for s in (0.2, 24, 370, 7500)] == ["1 s", "24 s", "6 min 10 s", "2 h 5 min"]
    assert table([("a",), ("x|y",)]) == "| a |\n| --- |\n| x\\|y |\n"


def test_a_run_that_found_its_records_says_how_long_they_took():
    ran = Run(
        "01_toy", "quick", "cpu", {}, "", 55.0, "2026-01-01", "abacus", "3", "2", records=782.0
    )
    page = runs_page([ran], [dataclasses.replace(ran, records=None)])
    here, published = (line for line in page.splitlines() if "01_toy" in line)
    assert "| 55 s | 13 min 2 s | 2026-01-01 | defaults |" in here
    assert "| 55 s |  | 2026-01-01 | defaults |" in published


HOSTILE = st.sampled_from(["<img src=q onerror=alert(1)>", "`<b>`", "a|b", "{{ x }}"])


@given(st.one_of(HOSTILE, st.text("<>`$_*|{}[]() ab\n"), st.text()))
def test_what_a_run_was_given_is_shown_as_text(text):
    """Its parameters as code, the rest as words: no tag, no link but the chapter's."""
    ran = Run("01_toy", "quick", "cpu", {"results": text}, "", 55.0, text, text, text, text)
    page = MarkdownIt("commonmark").enable("table").parse(runs_page([ran], []))
    kinds = Counter(part.type for token in page for part in token.children or ())
    assert not {token.type for token in page} & {"html_block", "fence", "code_block"}
    assert kinds.keys() <= {"text", "text_special", "code_inline", "link_open", "link_close"}
    assert (kinds["code_inline"], kinds["link_open"]) == (1, 1)
    assert sum(token.type == "tr_open" for token in page) == 2


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "3", '{"chapter": "01_toy"}', "\udcff", "{}" * 9, "[[]]",
                '{"a": 1}', '"x"', "[1]"],
)  # fmt: skip
def test_damaged_facts_of_runs_are_named_with_the_cure(clone, content):
    chapter = book.find("toy", clone)
    for path in (executed(chapter, "smoke"), executed(chapter, "smoke", ".json"),
                 published_file(clone)):  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(
        DamagedError, match=r"01_toy\.json cannot be read.*run the chapter toy again"
    ):
        last_run(chapter, "smoke")
    if content != "[]":
        with pytest.raises(DamagedError, match=r"runs\.json cannot be read.*git checkout"):
            runs_published(clone)
