"""From executed notebooks to the committed ones, on a toy clone."""

import json

import nbformat
import pytest
from published import check_published
from toy import edit

from gradleak import book
from gradleak.book.record import last_run, used_records


def test_what_was_not_run_is_not_published(clone):
    for publish in (lambda: book.publish("quick"), lambda: book.publish_records("toy")):
        with pytest.raises(book.BookError, match="no quick run: gradleak run toy --profile quick"):
            publish()
    assert not list(clone.glob("notebooks/*.ipynb"))


@pytest.mark.book
def test_publish_twice_gives_the_same_bytes(clone):
    book.run("toy", "quick")
    (path,) = book.publish("quick")
    first = path.read_bytes()
    book.run("toy", "quick")
    book.publish("quick", ["toy"])
    assert path.read_bytes() == first
    check_published(book.find("toy", clone))
    facts = json.loads((clone / "book" / "results" / "runs.json").read_text())
    assert [(run["chapter"], run["profile"]) for run in facts] == [("01_toy", "quick")]


RECORDS = """

# %%
import pathlib

import gradleak as gl

records = gl.experiment.Records(pathlib.Path(results), f"toy-{profile}-{defense}")
found = {"a": {"seconds": 1.0}, "b": {"seconds": 2.0}}
records.add(found, {}, gl.experiment.made(gl.device.named("cpu")))
records.ask([("b", {"label": "l"})], "gradleak run toy")
"""


@pytest.mark.slow
def test_records_are_published_without_their_notebook(clone):
    """Of the last run alone, whatever its parameters, and no row that it did not ask for."""
    script = clone / "notebooks" / "01_toy.py"
    script.write_text(script.read_text() + RECORDS)
    book.run("toy", "quick")
    book.run("toy", "quick", parameters={"defense": "laplace"})
    with pytest.raises(book.BookError, match="parameters of its own"):
        book.publish("quick", ["toy"])
    assert last_run(book.find("toy", clone), "quick").records == 2.0
    (path,) = book.publish_records("toy", "quick")
    assert path == clone / "book" / "results" / "toy-quick-laplace.csv"
    assert path.read_text() == "id,label,seconds\nb,l,2.0\n"
    assert not (clone / "notebooks" / "01_toy.ipynb").exists()


@pytest.mark.book
def test_records_in_a_folder_of_ones_own_are_counted_like_others(clone):
    script = clone / "notebooks" / "01_toy.py"
    script.write_text(script.read_text() + RECORDS)
    own = clone / "own"
    book.run("toy", "quick", parameters={"results": str(own), "defense": "laplace"})
    book.run("toy", "quick", parameters={"results": str(own)})
    assert last_run(book.find("toy", clone), "quick").records == 2.0
    (records,) = used_records(book.find("toy", clone), "quick")
    assert (records.folder, records.name) == (own, "toy-quick-gaussian")


@pytest.mark.book
def test_published_book_runs_nothing(clone):
    with pytest.raises(book.BookError, match="no published outputs: gradleak run toy"):
        book.build(published=True)
    book.run("toy", "quick")
    book.publish("quick")
    (clone / "_build").rename(clone / "elsewhere")
    html = book.build(published=True).parent
    assert "quick gaussian: 3" in (html / "notebooks" / "01_toy.html").read_text()
    assert "quick" in (html / "book" / "status.html").read_text()
    assert not (clone / "_build" / "executed").exists()


@pytest.mark.book
def test_publish_refuses_what_does_not_belong_to_the_script(clone):
    book.run("toy", "quick", parameters={"steps": 5})
    with pytest.raises(book.BookError, match=r"parameters of its own \(steps\)"):
        book.publish("quick")
    book.run("toy", "quick")
    edit(clone / "notebooks" / "01_toy.py", "total = seed", "total = 1 + seed")
    with pytest.raises(book.BookError, match="edited since its run"):
        book.publish("quick")
    edit(clone / "notebooks" / "01_toy.py", "total = 1 + seed", "total = seed")
    assert not list(clone.glob("notebooks/*.ipynb"))


@pytest.mark.book
@pytest.mark.parametrize(
    "output",
    [
        nbformat.v4.new_output("error", ename="ValueError", evalue="not good", traceback=[]),
        nbformat.v4.new_output("stream", name="stderr", text="Warning: not good"),
    ],
    ids=["error", "warning"],
)
def test_publish_refuses_errors_and_warnings(clone, output):
    path = book.run("toy", "quick")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[-1].outputs = [output]
    nbformat.write(notebook, path)
    with pytest.raises(book.BookError, match=r"begins with `total` says: .*not good"):
        book.publish("quick")
    assert not list(clone.glob("notebooks/*.ipynb"))
