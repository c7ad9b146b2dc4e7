"""The two parts of the site that are made, not written: tables of parameters and of run times."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from gradleak.book.chapter import PROFILES, chapters, summary
from gradleak.book.record import Run, runs_here, runs_published
from gradleak.book.values import parameters
from gradleak.experiment.markdown import code, words


def write_generated(home: Path, folder: Path, published: bool) -> None:
    """Write `parameters.md` and `runs.md`, which pages of the book include, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "parameters.md").write_text(parameters_page(home))
    here = [] if published else runs_here(home)
    (folder / "runs.md").write_text(runs_page(here, runs_published(home)))


def parameters_page(home: Path) -> str:
    """Return a section with a table of parameters for each chapter, in Markdown."""
    sections = []
    for chapter in chapters(home):
        rows = [("parameter", "default", "type", "meaning")]
        for p in parameters(chapter).values():
            # A comment in Python is no Markdown.
            rows.append((code(p.name), code(repr(p.default)), code(p.kind), words(p.help)))
        sections.append(f"### `{chapter.name}`: {summary(chapter)[0]}\n\n{table(rows)}")
    return "\n".join(sections)


def runs_page(here: Sequence[Run], published: Sequence[Run]) -> str:
    """Return the tables of run times: of this clone, and of the published outputs."""
    both = {"This build": here, "Published outputs": published}
    parts = [f"## {title}\n\n{_runs(runs)}" for title, runs in both.items() if runs]
    return "\n".join(parts) or "No chapter has been run yet.\n"


def duration(seconds: float) -> str:
    """Return a duration as people say it: `24 s`, `6 min 10 s`, `2 h 5 min`."""
    minutes, left = divmod(max(1, round(seconds)), 60)
    if not minutes:
        return f"{left} s"
    return f"{minutes} min {left} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def table(rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table whose first row is its head; bars in a cell are escaped."""
    head, *rest = ([cell.replace("|", r"\|") for cell in row] for row in rows)
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rest))


def _runs(runs: Sequence[Run]) -> str:
    machines: dict[str, list[Sequence[str]]] = {}
    for run in sorted(runs, key=lambda run: (run.chapter, PROFILES.index(run.profile))):
        machine = words(f"{run.hardware}; Python {run.python}, PyTorch {run.torch}")
        own = ", ".join(code(f"{name}={value}") for name, value in run.parameters.items())
        link = f"[{run.chapter}](../notebooks/{run.chapter}.ipynb)"
        records = duration(run.records) if run.records else ""
        row = (
            link,
            run.profile,
            duration(run.seconds),
            records,
            words(run.date),
            own or "defaults",
        )
        machines.setdefault(machine, []).append(row)
    head = ("chapter", "profile", "time", "its records", "date", "parameters")
    return "\n".join(f"{machine}:\n\n{table([head, *rows])}" for machine, rows in machines.items())
