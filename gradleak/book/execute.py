"""Executing a chapter: script to notebook, through papermill, into the build folder."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from gradleak.book.chapter import (
    PROFILES,
    BookError,
    Chapter,
    check,
    extra,
    find,
    pick,
    read,
    root,
)
from gradleak.book.record import (
    Run,
    executed,
    fingerprint,
    hardware,
    last_run,
    results_folder,
    save,
    started,
    used_records,
)

DEVICES = ("auto", "cpu", "cuda")


def run(
    name: str,
    profile: str = "smoke",
    device: str = "auto",
    parameters: Mapping[str, Any] | None = None,
    home: Path | None = None,
) -> Path:
    """Execute a chapter and return the path of the executed notebook.

    Raises `BookError` for an unknown chapter, profile, device or parameter before anything runs,
    and when a cell fails; the notebook of the last good run then stays as it was.
    """
    chapter = find(name, home or root())
    pick("profile", profile, PROFILES)
    pick("device", device, DEVICES)
    own = _own(chapter, parameters or {})
    results = Path(own.get("results") or results_folder(chapter.root))
    every = {"profile": profile, "device": device, **own, "results": str(results)}
    check(chapter, every)
    target = executed(chapter, profile)
    target.parent.mkdir(parents=True, exist_ok=True)
    before = fingerprint(chapter, device, own)
    started(chapter, profile, results)
    start = time.perf_counter()
    scratch = target.with_name(f".{chapter.stem}.{os.getpid()}.ipynb")
    try:
        _papermill(chapter, scratch, every)
        seconds = time.perf_counter() - start
        # Without its facts a notebook counts as stale, so a kill between these lines is safe.
        target.with_suffix(".json").unlink(missing_ok=True)
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)
    today = datetime.date.today().isoformat()
    facts = dict(seconds=round(seconds, 1), date=today, fingerprint=before, **hardware(device))
    shown = [records.facts()["seconds"] for records in used_records(chapter, profile)]
    facts["records"] = round(sum(shown), 1)
    save(Run(chapter.stem, profile, device, own, **facts), target.with_suffix(".json"))
    return target


def ensure(chapter: Chapter, profile: str) -> Path:
    """Return the executed notebook, running the chapter only if something it uses has changed.

    A run with parameters of the reader's own keeps them when it has to be repeated.
    """
    pick("profile", profile, PROFILES)
    last = last_run(chapter, profile)
    if last is None:
        click.echo(f"{chapter.stem}: running ({profile})")
        return run(chapter.stem, profile, home=chapter.root)
    own = "".join(f" {name}={value}" for name, value in last.parameters.items())
    if last.fingerprint == fingerprint(chapter, last.device, last.parameters):
        click.echo(f"{chapter.stem}: unchanged since its last run ({profile}{own})")
        return executed(chapter, profile)
    click.echo(f"{chapter.stem}: something it uses has changed, running again ({profile}{own})")
    return run(chapter.stem, profile, last.device, last.parameters, chapter.root)


def _own(chapter: Chapter, given: Mapping[str, Any]) -> dict[str, Any]:
    check(chapter, given)
    for name in ("profile", "device"):
        if name in given:
            raise BookError(f"Give the {name} as --{name} {given[name]}, not through -p.")
    own = dict(given)
    if own.get("results"):  # as the reader means it: seen from where the command was typed
        own["results"] = str(Path(own["results"]).resolve())
    return own


def _papermill(chapter: Chapter, output: Path, parameters: dict[str, Any]) -> None:
    papermill = extra("papermill")
    nbclient = extra("nbclient.exceptions")
    # It warns about annotations it cannot read; the names were checked above.
    logging.getLogger("papermill").setLevel(logging.ERROR)
    source = chapter.root / "_build" / "source" / f"{chapter.stem}.ipynb"
    source.parent.mkdir(parents=True, exist_ok=True)
    extra("nbformat").write(read(chapter), source)
    try:
        with _kernel_environment(chapter.root):
            papermill.execute_notebook(
                source,
                output,
                parameters=parameters,
                kernel_name="python3",
                cwd=chapter.source.parent,
                progress_bar=dict(desc=chapter.stem, unit="cell", disable=None),
                # what a kernel says about itself at start and end is noise here
                extra_arguments=["--log-level=CRITICAL"],
            )
    except papermill.PapermillExecutionError as error:
        raise BookError(_cause(chapter, error)) from error
    except nbclient.DeadKernelError as error:
        raise BookError(
            f"Chapter {chapter.stem}: its kernel died, most often for want of memory. "
            "Try a smaller profile or fewer images."
        ) from error


@contextlib.contextmanager
def _kernel_environment(home: Path) -> Iterator[None]:
    paths = [str(home), os.environ.get("PYTHONPATH", "")]
    wanted = {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),  # this clone's gradleak, and no other
        "GRADLEAK_STATIC": "1",  # widgets show the face that needs no kernel
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


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
