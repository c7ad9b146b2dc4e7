"""The flow from scripts to a site, on a toy clone."""

import json

import nbformat
import pytest
import yaml
from html_pages import broken
from published import check_published
from toy import edit

from gradleak import book
from gradleak.book.record import executed, fingerprint, last_run, used_records


def outputs(path):
    notebook = nbformat.read(path, as_version=4)
    return "".join(o.get("text", "") for c in notebook.cells for o in c.get("outputs", []))


# Running


def test_run_passes_parameters_and_records_facts(clone):
    path = book.run("toy", "quick", "cpu", {"steps": 5, "defense": "laplace"})
    assert path == clone / "_build" / "executed" / "quick" / "01_toy.ipynb"
    assert "quick laplace: 10" in outputs(path)
    facts = last_run(book.find("toy", clone), "quick")
    assert facts.parameters == {"steps": 5, "defense": "laplace"}
    assert facts.seconds > 0
    assert "CPU" in facts.hardware


@pytest.mark.parametrize("given", [{"stepz": 5}, {"profile": "paper"}])
def test_wrong_parameter_runs_nothing(clone, given):
    with pytest.raises(book.BookError, match=r"steps|--profile"):
        book.run("toy", parameters=given)
    assert not (clone / "_build").exists()


def test_kernel_sees_the_static_switch_and_this_clone(clone):
    lines = "import os\nprint(os.environ['GRADLEAK_STATIC'], os.environ['PYTHONPATH'], results)"
    edit(clone / "notebooks" / "01_toy.py", "# %%\ntotal = ", f"# %%\n{lines}\ntotal = ")
    text = outputs(book.run("toy"))
    assert f"1 {clone}" in text
    assert str(clone / "_build" / "results") in text


def test_failing_cell_stops_and_keeps_the_last_good_run(clone):
    good = book.run("toy").read_bytes()
    facts = last_run(book.find("toy", clone), "smoke")
    edit(clone / "notebooks" / "01_toy.py", "total = seed", "total = seeed")
    with pytest.raises(book.BookError, match=r"01_toy stopped in cell .*\n  NameError: .*seeed"):
        book.run("toy")
    assert executed(book.find("toy", clone), "smoke").read_bytes() == good
    assert last_run(book.find("toy", clone), "smoke") == facts
    assert not list((clone / "_build" / "executed").rglob(".*"))
    assert "NameError" in (clone / "_build" / "log" / "01_toy.txt").read_text()


def test_dead_kernel_is_a_clear_error(clone):
    edit(clone / "notebooks" / "01_toy.py", "total = seed", "import os; os._exit(9)\ntotal = seed")
    with pytest.raises(book.BookError, match="01_toy: its kernel died"):
        book.run("toy")


def test_fingerprint_follows_what_a_chapter_uses(clone):
    chapter = book.find("toy", clone)
    seen = {fingerprint(chapter, "auto", {}), fingerprint(chapter, "auto", {"steps": 5})}
    for name in ("gradleak/attacks/climb.py", "book/results/toy.csv", "notebooks/01_toy.py"):
        path = clone / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(chapter.source.read_text() + "\n")
        seen.add(fingerprint(chapter, "auto", {}))
    assert len(seen) == 5
    (clone / "gradleak" / "cli.py").write_text("")
    (clone / "book" / "results" / "runs.json").write_text("[]")
    assert fingerprint(chapter, "auto", {}) in seen


# Rendering


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


def test_launch_buttons_are_one_block(clone):
    text = (clone / "book" / "rerun.md").read_text()
    block = text.split("```yaml\n")[1].split("```")[0]
    assert set(yaml.safe_load(block)) == {"repository", "html", "launch_buttons"}
    with (clone / "_config.yml").open("a") as config:
        config.write(block)
    page = (book.build().parent / "notebooks" / "01_toy.html").read_text()
    notebook = "OWNER/REPO/blob/main/notebooks/01_toy.ipynb"
    assert f"https://colab.research.google.com/github/{notebook}" in page


# Publishing


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


def test_records_in_a_folder_of_ones_own_are_counted_like_others(clone):
    script = clone / "notebooks" / "01_toy.py"
    script.write_text(script.read_text() + RECORDS)
    own = clone / "own"
    book.run("toy", "quick", parameters={"results": str(own), "defense": "laplace"})
    book.run("toy", "quick", parameters={"results": str(own)})
    assert last_run(book.find("toy", clone), "quick").records == 2.0
    (records,) = used_records(book.find("toy", clone), "quick")
    assert (records.folder, records.name) == (own, "toy-quick-gaussian")


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


def test_publish_refuses_what_does_not_belong_to_the_script(clone):
    with pytest.raises(book.BookError, match="no quick run: gradleak run toy --profile quick"):
        book.publish("quick")
    book.run("toy", "quick", parameters={"steps": 5})
    with pytest.raises(book.BookError, match=r"parameters of its own \(steps\)"):
        book.publish("quick")
    book.run("toy", "quick")
    edit(clone / "notebooks" / "01_toy.py", "total = seed", "total = 1 + seed")
    with pytest.raises(book.BookError, match="edited since its run"):
        book.publish("quick")
    edit(clone / "notebooks" / "01_toy.py", "total = 1 + seed", "total = seed")
    assert not list(clone.glob("notebooks/*.ipynb"))


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
