"""Executing a chapter: script to notebook, through papermill, into the build folder."""

import contextlib
import logging
import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import click

from gradleak.book import record
from gradleak.book.chapter import DEVICES, PROFILES, BookError, Chapter, extra, find, pick, read
from gradleak.book.pages import duration
from gradleak.book.record import Run, executed, last_run
from gradleak.book.values import check
from gradleak.experiment._database import rows_kept
from gradleak.files import whole

AT_ONCE = 2  # chapters in smoke, whose tensors are too small for several threads


def run(
    name: str,
    profile: str = "smoke",
    device: str = "auto",
    parameters: Mapping[str, Any] | None = None,
    home: Path | None = None,
) -> Path:
    """Execute a chapter and return the path of the executed notebook.

    Raises `BookError` for an unknown chapter, profile, device or parameter and for a value that the
    parameter does not take, before anything runs, and when a cell fails; the notebook of the last
    good run then stays as it was.
    """
    chapter = find(name, home)
    pick("profile", profile, PROFILES)
    pick("device", device, DEVICES)
    own = _own(chapter, parameters or {})
    results = Path(own.get("results") or chapter.root / "_build" / "results")
    every = {"profile": profile, "device": device, **own, "results": str(results)}
    check(chapter, every)  # that it takes a profile, a device and a folder for results
    target, facts_file = executed(chapter, profile), executed(chapter, profile, ".json")
    before = record.fingerprint(chapter, device, own)
    _writable(results)
    record.started(chapter, profile, results)
    start = time.perf_counter()
    with _stopped(chapter, profile, results), whole(target) as scratch:
        _papermill(chapter, scratch, every)
        seconds = time.perf_counter() - start
        # Without its facts a notebook counts as stale, so a kill between these lines is safe.
        facts_file.unlink(missing_ok=True)
    from gradleak.device import named  # with torch, which most commands can spare
    from gradleak.experiment import made

    shown = sum(records.facts()["seconds"] for records in record.used_records(chapter, profile))
    where = {k: v for k, v in made(named(device)).items() if k != "version"}
    took = {"seconds": round(seconds, 1), "records": round(shown, 1)}
    record.save(Run(chapter.stem, profile, device, own, before, **took, **where), facts_file)
    return target


def ensure(every: Sequence[Chapter], profile: str) -> list[Path]:
    """Return the executed notebooks, running chapters of which something they use has changed.

    A run with parameters of the reader's own keeps them when it has to be repeated. In `smoke`
    two chapters run at once, each with half of the cores, and one that fails stops no other.
    """
    pick("profile", profile, PROFILES)
    stale = [chapter for chapter in every if not _unchanged(chapter, profile)]
    if profile == "smoke" and len(stale) > 1:
        _side_by_side(stale, profile)
    else:
        for chapter in stale:
            _repeat(chapter, profile)
    return [executed(chapter, profile) for chapter in every]


def _unchanged(chapter: Chapter, profile: str) -> bool:
    last = last_run(chapter, profile)
    if last is None:
        click.echo(f"{chapter.stem}: runs ({profile})")
        return False
    same = last.fingerprint == record.fingerprint(chapter, last.device, last.parameters)
    news = "unchanged since its last run" if same else "something it uses has changed, runs again"
    own = "".join(f" {name}={value}" for name, value in last.parameters.items())
    click.echo(f"{chapter.stem}: {news} ({profile}{own})")
    return same


def _repeat(chapter: Chapter, profile: str) -> None:
    last = last_run(chapter, profile)
    given = (last.device, last.parameters) if last else ()
    run(chapter.name, profile, *given, home=chapter.root)


def _side_by_side(every: Sequence[Chapter], profile: str) -> None:
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // AT_ONCE)))
    spawn = multiprocessing.get_context("spawn")
    failed = []
    with _environment(OMP_NUM_THREADS=threads), ProcessPoolExecutor(AT_ONCE, spawn) as pool:
        jobs = {pool.submit(_repeat, chapter, profile): chapter for chapter in every}
        try:
            for job in as_completed(jobs):
                chapter = jobs[job]
                try:
                    job.result()
                    took = duration(last_run(chapter, profile).seconds)
                    click.echo(f"{chapter.stem}: done in {took}")
                except BookError as error:
                    click.echo(f"{chapter.stem}: failed")
                    failed.append(error.message)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # an interrupt is not to wait for what is queued
            raise
    if failed:
        raise BookError("\n".join(failed))


def _own(chapter: Chapter, given: Mapping[str, Any]) -> dict[str, Any]:
    own = check(chapter, given)
    for name in {"profile", "device"} & set(own):
        raise BookError(f"Give the {name} as --{name} {own[name]}, not through -p.")
    if own.get("results"):  # as the reader means it: seen from where the command was typed
        own["results"] = str(Path(own["results"]).absolute())
    return own


def _writable(results: Path) -> None:
    """Make the folder for records; `BookError` where none can be, before anything runs."""
    try:
        results.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise BookError(
            f"No folder for records can be made at {str(results)[:200]!r} "
            f"({getattr(error, 'strerror', None) or error}): give another, -p results=FOLDER."
        ) from error


@contextlib.contextmanager
def _stopped(chapter: Chapter, profile: str, results: Path) -> Iterator[None]:
    """Where the reader stops it inside, say at once what is kept; the kernel takes its time."""

    def say(*_: Any) -> None:
        kept = rows_kept(results, chapter.name, profile)
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # of tasks that end with the kernel
        click.echo(f"\n{chapter.stem} stops: {kept} rows kept; the same command goes on.", err=True)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # which alone gets signals
        yield
        return
    before = signal.signal(signal.SIGINT, say)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _papermill(chapter: Chapter, output: Path, parameters: dict[str, Any]) -> None:
    papermill, errors = extra("papermill"), extra("nbclient.exceptions")
    # It warns about annotations it cannot read; the names were checked above.
    logging.getLogger("papermill").setLevel(logging.ERROR)
    source = chapter.root / "_build" / "source" / f"{chapter.stem}.ipynb"
    source.parent.mkdir(parents=True, exist_ok=True)
    extra("nbformat").write(read(chapter), source)
    environment = {
        "PYTHONPATH": python_path(chapter.root),
        "GRADLEAK_STATIC": "1",  # widgets show the face that needs no kernel
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),  # see book/gotchas.md
    }
    # Where two run at once, the lines of the process above say how far they are.
    alone = multiprocessing.parent_process() is None
    try:
        with _environment(**environment):
            papermill.execute_notebook(
                source,
                output,
                parameters=parameters,
                kernel_name="python3",
                cwd=chapter.source.parent,
                progress_bar=dict(desc=chapter.stem, unit="cell", disable=None if alone else True),
                # what a kernel says about itself at start and end is noise here
                extra_arguments=["--log-level=CRITICAL"],
            )
    except papermill.PapermillExecutionError as error:
        raise BookError(_cause(chapter, error)) from error
    except errors.DeadKernelError as error:
        raise BookError(
            f"Chapter {chapter.stem}: its kernel died, most often for want of memory. "
            "Try a smaller profile or fewer images."
        ) from error


def python_path(home: Path) -> str:
    """Return a PYTHONPATH with the clone in front: its gradleak is imported, and no other."""
    return os.pathsep.join(filter(None, [str(home), os.environ.get("PYTHONPATH")]))


@contextlib.contextmanager
def _environment(**wanted: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _cause(chapter: Chapter, error: Any) -> str:
    log = chapter.root / "_build" / "log" / f"{chapter.stem}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback)) + "\n")
    lines = [line for line in error.source.splitlines() if line.strip()]
    message = "\n  ".join(str(error.evalue).strip().splitlines()[:5])
    return (
        f"Chapter {chapter.stem} stopped in cell {error.exec_count}, which begins with "
        f"`{lines[0].strip()}`:\n  {error.ename}: {message}\n"
        f"The last good notebook and site were kept. Whole traceback: {log}"
    )
