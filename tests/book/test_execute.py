"""Executing a chapter: what its kernel sees, what is kept, what happens when it fails."""

import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from toy import edit

from gradleak import book
from gradleak.book.execute import _environment, ensure
from gradleak.book.record import executed, last_run


def outputs(path):
    notebook = nbformat.read(path, as_version=4)
    return "".join(o.get("text", "") for c in notebook.cells for o in c.get("outputs", []))


@pytest.mark.book
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


@pytest.mark.book
def test_kernel_sees_the_static_switch_and_this_clone(clone):
    seen = ("GRADLEAK_STATIC", "OMP_WAIT_POLICY", "PYTHONPATH")
    lines = f"import os\nprint(*(os.environ[name] for name in {seen}), results)"
    edit(clone / "notebooks" / "01_toy.py", "# %%\ntotal = ", f"# %%\n{lines}\ntotal = ")
    text = outputs(book.run("toy"))
    assert f"1 PASSIVE {clone}" in text
    assert str(clone / "_build" / "results") in text


@pytest.mark.book
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


@pytest.mark.book
def test_dead_kernel_is_a_clear_error(clone):
    edit(clone / "notebooks" / "01_toy.py", "total = seed", "import os; os._exit(9)\ntotal = seed")
    with pytest.raises(book.BookError, match="01_toy: its kernel died"):
        book.run("toy")


@pytest.mark.book
def test_two_chapters_at_once_and_one_that_fails_stops_no_other(clone, capfd):
    script = (clone / "notebooks" / "01_toy.py").read_text()
    for stem in ("02_next", "03_last"):
        (clone / "notebooks" / f"{stem}.py").write_text(script)
    edit(clone / "notebooks" / "02_next.py", "total = seed", "total = seeed")
    every = book.chapters(clone)
    with pytest.raises(book.BookError, match=r"02_next stopped in cell .*\n  NameError"):
        ensure(every, "smoke")
    assert [last_run(chapter, "smoke") is not None for chapter in every] == [True, False, True]
    said = capfd.readouterr().out
    assert "03_last: done in" in said
    assert "02_next: failed" in said


def test_environment_is_put_back(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "here")
    with _environment(PYTHONPATH="there", GRADLEAK_NEW="1"):
        assert (os.environ["PYTHONPATH"], os.environ["GRADLEAK_NEW"]) == ("there", "1")
    assert os.environ["PYTHONPATH"] == "here"
    assert "GRADLEAK_NEW" not in os.environ


def test_a_folder_for_records_is_made_or_refused_before_anything_runs(clone):
    (clone / "file").write_text("")
    for results in (clone / "file", clone / "file" / "below", "a\0b", "x" * 5000):
        with pytest.raises(book.BookError, match="No folder for records can be made"):
            book.run("toy", parameters={"results": str(results)})
    assert not (clone / "_build" / "executed").exists()


STOPPED = """
import gradleak as gl, torch
from pathlib import Path
from gradleak.experiment import Records, made
own = Records(Path(results), "toy-smoke-digits")
own.ask([(str(i), {"index": i}) for i in range(9)], "")
own.add({str(i): {"seconds": 0.0} for i in range(4)}, {}, made(torch.device("cpu")))
Path("../begun").touch()
import time; time.sleep(60)
total = seed"""


@pytest.mark.book
@pytest.mark.slow
def test_who_stops_a_run_is_told_at_once_what_is_kept(clone):
    edit(clone / "notebooks" / "01_toy.py", "total = seed", STOPPED)
    words = [sys.executable, "-c", "from gradleak.cli import main; main()", "run", "toy"]
    ran = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    while not (clone / "begun").exists():
        assert ran.poll() is None
        time.sleep(0.1)
    ran.send_signal(signal.SIGINT)
    said = ran.communicate()[1]
    assert "01_toy stops: 4 rows kept; the same command goes on." in said
    assert said.index("4 rows kept") < said.index("Aborted!")
    assert "Traceback" not in said
    assert ran.returncode == 1
