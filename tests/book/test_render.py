"""From executed notebooks to a site: what is kept, what is refused, what is marked as a toy."""

import subprocess
import sys

import pytest
import yaml
from html_pages import broken
from toy import edit

from gradleak import book
from gradleak.book.chapter import read
from gradleak.book.render import _mark_as_toy


@pytest.mark.book
def test_build_reuses_what_is_unchanged_and_keeps_the_last_good_site(clone, capsys):
    book.run("toy", parameters={"steps": 5})
    index = book.build()
    page = index.parent / "notebooks" / "01_toy.html"
    assert "smoke gaussian: 10" in page.read_text()  # the reader's own parameters are kept
    assert "Parameters of this run" in page.read_text()
    rerun = (index.parent / "book" / "rerun.html").read_text()
    assert "number of steps" in rerun
    assert "empty: results/&lt;profile&gt;" in rerun
    assert broken(index.parent) == []
    before = page.stat()

    capsys.readouterr()
    book.build()
    said = capsys.readouterr().out
    assert "unchanged" in said
    assert "nothing changed" in said

    edit(clone / "book" / "intro.md", "01_toy", "01_toi")
    with pytest.raises(book.BookError, match=r"  book/intro.md:3: WARNING: unknown document"):
        book.build()
    edit(clone / "book" / "intro.md", "01_toi", "01_toy")
    edit(clone / "notebooks" / "01_toy.py", "total = seed", "total = seeed")
    with pytest.raises(book.BookError, match="01_toy stopped"):
        book.build()
    assert page.stat() == before


@pytest.mark.book
def test_two_processes_that_build_one_site_take_turns(clone):
    book.run("toy")
    command = [sys.executable, "-c", "from gradleak import book; book.build()"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted("nothing changed" in text for text in said) == [False, True]


@pytest.mark.book
def test_launch_buttons_are_one_block(clone):
    text = (clone / "book" / "rerun.md").read_text()
    block = text.split("```yaml\n")[1].split("```")[0]
    assert set(yaml.safe_load(block)) == {"repository", "html", "launch_buttons"}
    with (clone / "_config.yml").open("a") as config:
        config.write(block)
    page = (book.build().parent / "notebooks" / "01_toy.html").read_text()
    notebook = "OWNER/REPO/blob/main/notebooks/01_toy.ipynb"
    assert f"https://colab.research.google.com/github/{notebook}" in page


def test_smoke_pages_say_that_they_are_toys_below_their_title(clone):
    notebook = read(book.find("toy", clone))
    _mark_as_toy(notebook)
    lines = notebook.cells[0].source.splitlines()
    assert lines[:3] == ["# A toy", "", ":::{admonition} A toy"]
    assert lines.count(":::{admonition} A toy") == 1
