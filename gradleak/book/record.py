"""One line of facts per executed chapter: what ran, on what, for how long."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradleak.book.chapter import Chapter, chapters

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


def executed(chapter: Chapter, profile: str) -> Path:
    """Return where the executed notebook of a chapter lies, whether or not it is there."""
    return chapter.root / "_build" / "executed" / profile / f"{chapter.stem}.ipynb"


def last_run(chapter: Chapter, profile: str) -> Run | None:
    """Return the facts of the executed notebook, or None where there is none."""
    notebook = executed(chapter, profile)
    facts = notebook.with_suffix(".json")
    if not (notebook.is_file() and facts.is_file()):
        return None
    return Run(**json.loads(facts.read_text()))


def runs_here(home: Path, profiles: Iterable[str]) -> list[Run]:
    """Return the facts of everything executed in this clone."""
    every = (last_run(chapter, profile) for profile in profiles for chapter in chapters(home))
    return [run for run in every if run]


def published_file(home: Path) -> Path:
    """Return where the facts of the published notebooks lie."""
    return home / "book" / "results" / "runs.json"


def runs_published(home: Path) -> list[Run]:
    """Return the facts of the published notebooks."""
    path = published_file(home)
    runs = [Run(**facts) for facts in json.loads(path.read_text())] if path.is_file() else []
    return [run for run in runs if Chapter(home, run.chapter).source.is_file()]


def save(runs: Run | list[Run], path: Path) -> None:
    """Write facts as JSON, whole or not at all."""
    plain = [dataclasses.asdict(r) for r in runs] if isinstance(runs, list) else vars(runs)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(json.dumps(plain, indent=1, sort_keys=True) + "\n")
    scratch.replace(path)


def fingerprint(chapter: Chapter, device: str, parameters: dict[str, Any]) -> str:
    """Return a hash of everything the chapter's outputs depend on."""
    records = chapter.root.glob("book/results/**/*")
    skip = published_file(chapter.root)
    files = [chapter.source, *package_files(chapter.root), *(p for p in records if p != skip)]
    settings = json.dumps([device, parameters], sort_keys=True)
    return digest(chapter.root, files, settings)


def package_files(home: Path) -> list[Path]:
    """Return the package's modules; the command line and this toolchain change no output."""
    every = home.glob("gradleak/**/*.py")
    return [p for p in every if p.name != "cli.py" and p.parent != home / "gradleak" / "book"]


def results_folder(home: Path) -> Path:
    """Return where records of runs in this clone lie."""
    return home / "_build" / "results"


def started(chapter: Chapter, profile: str, results: Path) -> None:
    """Note where the records of a run lie, and forget which ones the run before it asked for."""
    for records in _records(chapter, profile, results):
        records.forget()
    _place(chapter, profile).write_text(str(results))


def used_records(chapter: Chapter, profile: str) -> list[Records]:
    """Return the records that a chapter's last run asked for, whether or not it has ended."""
    place = _place(chapter, profile)
    return _records(chapter, profile, Path(place.read_text())) if place.exists() else []


def _place(chapter: Chapter, profile: str) -> Path:
    return executed(chapter, profile).with_suffix(".results")


def _records(chapter: Chapter, profile: str, folder: Path) -> list[Records]:
    from gradleak.experiment import Records  # pandas and torch, which most commands can spare

    return Records.of(folder, chapter.name, profile)


def digest(home: Path, files: Iterable[Path], *texts: str) -> str:
    """Return the SHA-256 of files (their names below `home`, and contents) and of texts."""
    total = hashlib.sha256()
    for path in sorted(path for path in files if path.is_file()):
        total.update(f"{path.relative_to(home)}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    for text in texts:
        total.update(hashlib.sha256(text.encode()).digest())
    return total.hexdigest()


def hardware(device: str) -> dict[str, str]:
    """Return the hardware that a run with `device` uses, and the versions of its software."""
    import torch  # here, since everything else in this file is needed without it

    if device != "cpu" and torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    else:
        threads = torch.get_num_threads()
        name = f"{threads} CPU thread{'s' * (threads > 1)}, {_processor()}"
    return {"hardware": name, "python": platform.python_version(), "torch": torch.__version__}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
