"""What a toy clone contains: its chapters, their order, their titles."""

import json
from types import SimpleNamespace

import pytest
from toy import REPO, edit

from gradleak import book
from gradleak.book import chapter as chapter_module
from gradleak.book.chapter import summary


def test_root_is_found_from_below(clone):
    assert book.root(clone / "book") == clone


def test_no_clone_is_a_clear_error(tmp_path):
    with pytest.raises(book.BookError, match="go to your clone"):
        book.root(tmp_path)


def test_the_way_to_a_clone_is_the_folder_of_an_editable_install(tmp_path):
    with pytest.raises(book.BookError, match=f"cd {REPO}$"):
        book.root(tmp_path)


@pytest.mark.parametrize(
    ("origin", "way"),
    [
        (None, r"pip download .* gradleak==[\d.]+ && tar xf gradleak-.*\.tar\.gz && cd gradleak-"),
        ({"url": "https://host/gradleak.git", "vcs_info": {}}, "git clone https://host/gradleak"),
        ({"url": "file://CLONE", "dir_info": {}}, "cd CLONE$"),
        ({"url": "file://CLONE/gone", "dir_info": {}}, "pip download"),
    ],
)
def test_the_way_to_a_clone_is_what_pip_noted(clone, tmp_path, monkeypatch, origin, way):
    noted = origin and json.dumps(origin).replace("CLONE", str(clone))
    distribution = SimpleNamespace(read_text=lambda name: noted)
    monkeypatch.setattr(chapter_module.metadata, "distribution", lambda name: distribution)
    monkeypatch.setattr(chapter_module, "__file__", tmp_path / "site-packages/gradleak/book/c.py")
    with pytest.raises(book.BookError, match=way.replace("CLONE", str(clone))):
        book.root(tmp_path)


def test_chapter_is_found_by_either_name(clone):
    assert book.find("toy", clone) == book.find("01_toy", clone) == book.chapters(clone)[0]


def test_unknown_chapter_names_the_near_miss(clone):
    with pytest.raises(book.BookError, match=r"unknown chapter 'toi'.*'toy'"):
        book.run("toi")


def test_summary_skips_the_fences_of_a_box(clone):
    assert summary(book.find("toy", clone)) == ("A toy", "One sum, computed twice.")


@pytest.mark.parametrize(
    ("claim", "sentence"),
    [
        ("Noise hides little, e.g. 0.5 dB. Masks hide less.", "Noise hides little, e.g. 0.5 dB."),
        ("See Fig. 2 for $x$. $y$ is public.", "See Fig. 2 for $x$."),
        ("Use what you know: maximise it.", "Use what you know."),
        ("It has no end", "It has no end"),
    ],
)
def test_summary_is_the_first_sentence_of_the_claim(clone, claim, sentence):
    items = f"- **Claim.** {claim}\n# - **Paper.** Section 3."
    edit(
        clone / "notebooks" / "01_toy.py", "One sum, **computed** twice. It takes a second.", items
    )
    assert summary(book.find("toy", clone)) == ("A toy", sentence)


def test_reading_order_puts_letters_after_their_number(clone):
    for stem in ("02_x", "02b_tables", "03_last", "notes"):
        (clone / "notebooks" / f"{stem}.py").write_text("")
    names = [chapter.name for chapter in book.chapters(clone)]
    assert names == ["toy", "x", "tables", "last"]
    assert book.find("tables", clone).stem == "02b_tables"
    assert book.find("02b_tables", clone).name == "tables"
