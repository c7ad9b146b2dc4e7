"""One line of facts per executed chapter: what ran, on what, for how long."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradleak.book.chapter import PROFILES, Chapter, chapters
from gradleak.files import sound, whole

if TYPE_CHECKING:
    from gradleak.experiment import Records


@dataclass(frozen=True)
class Run:
    """Facts of one execution of a chapter; `parameters` are those that differ from the script.

    records: seconds that the records took which it shows, computed by it or found; None: unknown.
    """

    chapter: str
    profile: str
    device: str
    parameters: dict[str, Any]
    fingerprint: str
    seconds: float
    date: str
    hardware: str
    python: str
    torch: str
    records: float | None = None


def executed(chapter: Chapter, profile: str, suffix: str = ".ipynb") -> Path:
    """Return where the executed notebook of a chapter lies, or another file beside it."""
    return chapter.root / "_build" / "executed" / profile / f"{chapter.stem}{suffix}"


def last_run(chapter: Chapter, profile: str) -> Run | None:
    """Return the facts of the executed notebook, or None where there is none."""
    facts = executed(chapter, profile, ".json")
    if not (executed(chapter, profile).is_file() and facts.is_file()):
        return None
    with sound(
        facts, "facts of a run", f"delete it and run the chapter {chapter.name} again", TypeError
    ):
        return _run(json.loads(facts.read_text("utf-8")))


def runs_here(home: Path) -> list[Run]:
    """Return the facts of everything executed in this clone."""
    every = (last_run(chapter, profile) for profile in PROFILES for chapter in chapters(home))
    return [run for run in every if run]


def _run(facts: dict[str, Any]) -> Run:
    run = Run(**facts)
    texts = (
        run.chapter,
        run.device,
        run.fingerprint,
        run.date,
        run.hardware,
        run.python,
        run.torch,
    )
    numbers = (run.seconds, 0 if run.records is None else run.records)
    if not (run.profile in PROFILES and isinstance(run.parameters, dict)
            and all(isinstance(text, str) for text in texts)
            and all(isinstance(number, int | float) for number in numbers)):  # fmt: skip
        raise ValueError("not what a run wrote")
    return run


def published_file(home: Path) -> Path:
    """Return where the facts of the published notebooks lie."""
    return home / "book" / "results" / "runs.json"


def runs_published(home: Path) -> list[Run]:
    """Return the facts of the published notebooks."""
    path, runs = published_file(home), []
    if path.exists():
        with sound(path, "facts of runs", "fetch it again (git checkout)", TypeError):
            runs = [_run(facts) for facts in json.loads(path.read_text("utf-8"))]
    return [run for run in runs if Chapter(home, run.chapter).source.is_file()]


def save(facts: Any, path: Path) -> None:
    """Write facts as JSON, whole or not at all."""
    with whole(path) as scratch:
        scratch.write_text(json.dumps(facts, default=vars, indent=1, sort_keys=True) + "\n")


def fingerprint(chapter: Chapter, device: str, parameters: dict[str, Any]) -> str:
    """Return a hash of everything the chapter's outputs depend on."""
    records = set(chapter.root.glob("book/results/**/*")) - {published_file(chapter.root)}
    settings = json.dumps([device, parameters], sort_keys=True)
    files = [chapter.source, *package_files(chapter.root), *records]
    return digest(chapter.root, files, settings)


def package_files(home: Path) -> list[Path]:
    """Return the package's modules; the command line and this toolchain change no output."""
    every = home.glob("gradleak/**/*.py")
    return [p for p in every if p.name != "cli.py" and p.parent != home / "gradleak" / "book"]


def started(chapter: Chapter, profile: str, results: Path) -> None:
    """Note where the records of a run lie, and forget which ones the run before it asked for."""
    place = executed(chapter, profile, ".results")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(str(results))
    for records in used_records(chapter, profile):
        records.forget()


def used_records(chapter: Chapter, profile: str) -> list[Records]:
    """Return the records that a chapter's last run asked for, whether or not it has ended."""
    place = executed(chapter, profile, ".results")
    if not place.exists():
        return []
    from gradleak.experiment import Records  # pandas and torch, which most commands can spare

    return Records.of(Path(place.read_text()), chapter.name, profile)


def digest(home: Path, files: Iterable[Path], text: str = "") -> str:
    """Return the SHA-256 of files (their names below `home`, and contents) and of a text."""
    total = hashlib.sha256(text.encode())
    for path in sorted(path for path in files if path.is_file()):
        total.update(f"{path.relative_to(home)}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
