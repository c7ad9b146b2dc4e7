"""The two parts of the site that are made, not written: tables of parameters and of run times."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from gradleak.book.chapter import PROFILES, chapters, summary
from gradleak.book.record import Run, runs_here, runs_published
from gradleak.book.values import parameters


def write_generated(home: Path, folder: Path, published: bool) -> None:
    """Write `parameters.md` and `runs.md`, which pages of the book include, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    here = [] if published else runs_here(home, PROFILES)
    (folder / "parameters.md").write_text(parameters_page(home))
    (folder / "runs.md").write_text(runs_page(here, runs_published(home)))


def parameters_page(home: Path) -> str:
    """Return a section with a table of parameters for each chapter, in Markdown."""
    sections = []
    for chapter in chapters(home):
        rows = [
            (f"`{p.name}`", f"`{p.default!r}`", f"`{p.kind}`", _as_written(p.help))
            for p in parameters(chapter).values()
        ]
        title = f"### `{chapter.name}`: {summary(chapter)[0]}\n\n"
        sections.append(title + table(("parameter", "default", "type", "meaning"), rows))
    return "\n".join(sections)


def runs_page(here: Sequence[Run], published: Sequence[Run]) -> str:
    """Return the tables of run times: of this clone, and of the published outputs."""
    parts = []
    if here:
        parts.append(f"## This build\n\n{_runs(here)}")
    if published:
        parts.append(f"## Published outputs\n\n{_runs(published)}")
    return "\n".join(parts) or "No chapter has been run yet.\n"


def duration(seconds: float) -> str:
    """Return a duration as people say it: `24 s`, `6 min 10 s`, `2 h 5 min`."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, left = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {left} s"
    return f"{minutes // 60} h {minutes % 60} min"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; bars in a cell are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(c.replace('|', chr(92) + '|') for c in ln)} |\n" for ln in lines)


def _as_written(comment: str) -> str:
    return re.sub(r"([<*_$])", r"\\\1", comment)  # a comment in Python is no Markdown


def _runs(runs: Sequence[Run]) -> str:
    machines: dict[str, list[Sequence[str]]] = {}
    for run in sorted(runs, key=lambda run: (run.chapter, PROFILES.index(run.profile))):
        machine = f"{run.hardware}; Python {run.python}, PyTorch {run.torch}"
        own = ", ".join(f"`{name}={value}`" for name, value in run.parameters.items())
        link = f"[{run.chapter}](../notebooks/{run.chapter}.ipynb)"
        records = duration(run.records) if run.records else ""
        row = (link, run.profile, duration(run.seconds), records, run.date, own or "defaults")
        machines.setdefault(machine, []).append(row)
    head = ("chapter", "profile", "time", "its records", "date", "parameters")
    return "\n".join(f"{machine}:\n\n{table(head, rows)}" for machine, rows in machines.items())
