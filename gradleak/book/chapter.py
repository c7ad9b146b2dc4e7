"""What a clone of the book contains: its chapters, and what each is about."""

import importlib
import json
import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import click

from gradleak.names import choose
from gradleak.version import __version__

PROFILES = ("smoke", "quick", "paper")
DEVICES = ("auto", "cpu", "cuda")
NUMBERED = re.compile(r"\d+[a-z]?_")
# Up to a full stop that a new sentence follows ("e.g. one" and "0.5" have others), or to a colon.
STOP = r"(?<!\be\.g)(?<!\bi\.e)(?<!\bcf)(?<!\bvs)[.?!](?=\s+[A-Z$])"
SENTENCE = re.compile(rf".+?({STOP}|:(?=\s)|$)")
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
PROFILE_HELP = "smoke: seconds, on the embedded digits; quick: minutes, on 2 cores; paper: a GPU"


class BookError(click.ClickException):
    """Something the reader can put right; the message says how."""


@dataclass(frozen=True)
class Chapter:
    """One chapter of the clone at `root`; `stem` is its file name, such as `02b_tables`."""

    root: Path
    stem: str

    @property
    def name(self) -> str:
        """The short name, such as `tables`."""
        return self.stem.split("_", 1)[1]

    @property
    def source(self) -> Path:
        """The percent script that people edit."""
        return self.root / "notebooks" / f"{self.stem}.py"

    @property
    def published(self) -> Path:
        """The notebook with outputs that is paired with the script."""
        return self.source.with_suffix(".ipynb")


def extra(module: str) -> ModuleType:
    """Import a module of the `book` extra, or raise `BookError` saying how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BookError(f"{module} is not installed: pip install -e '.[book]'") from error


def pick(what: str, name: str, valid: Iterable[str]) -> str:
    """Return `name` if it is valid; otherwise raise `BookError` with the nearest valid name."""
    try:
        return choose(what, name, valid)
    except ValueError as error:
        raise BookError(f"{error}.") from error


def root(start: Path | None = None) -> Path:
    """Return the clone that holds `start` (default: the working folder), or raise `BookError`."""
    start = Path(start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if _is_clone(folder):
            return folder
    raise BookError(
        f"There is no book in {start} or above it: go to your clone of gradleak "
        f"(the folder with _toc.yml and notebooks/) and try again; here: {_way_to_a_clone()}"
    )


def _is_clone(folder: Path) -> bool:
    return (folder / "_toc.yml").is_file() and (folder / "notebooks").is_dir()


def _way_to_a_clone() -> str:
    """Return the shell command that leads to the source of what is imported here."""
    beside = Path(__file__).parents[2]  # an editable install lies in its clone
    return f"cd {beside}" if _is_clone(beside) else _way_from(_origin())


def _origin() -> dict[str, Any]:
    """Return where pip got the package, if that was no index (direct_url.json of PEP 610)."""
    try:
        return json.loads(metadata.distribution("gradleak").read_text("direct_url.json") or "{}")
    except metadata.PackageNotFoundError:
        return {}


def _way_from(origin: dict[str, Any]) -> str:
    if "vcs_info" in origin:
        return f"git clone {origin['url']}"
    if "dir_info" in origin and _is_clone(folder := _local(origin["url"])):
        return f"cd {folder}"
    name = f"gradleak-{__version__}"  # from an index, which has the source archive as well
    download = f"pip download --no-deps --no-binary gradleak gradleak=={__version__}"
    return f"{download} && tar xf {name}.tar.gz && cd {name}"


def _local(url: str) -> Path:
    return Path(url2pathname(urlsplit(url).path))


def chapters(home: Path) -> list[Chapter]:
    """Return the chapters of a clone, in reading order: 02, 02b, 03."""
    stems = (path.stem for path in home.glob("notebooks/*.py"))
    # In order of their numbers: of whole names `02_x` would come after `02b_x`.
    ordered = sorted(stems, key=lambda stem: stem.split("_", 1))
    return [Chapter(home, stem) for stem in ordered if NUMBERED.match(stem)]


def find(name: str, home: Path | None = None) -> Chapter:
    """Return the chapter called `name` (`comparison` or `02_comparison`), or raise `BookError`."""
    every = {chapter.name: chapter for chapter in chapters(home or root())}
    by_stem = {chapter.stem: chapter for chapter in every.values()}
    return by_stem.get(name) or every[pick("chapter", name, every)]


def read(chapter: Chapter) -> Any:
    """Return the chapter's script as a notebook whose cell ids are the same at every reading."""
    notebook = extra("jupytext").read(chapter.source)
    notebook.metadata = {"kernelspec": KERNEL}
    for index, cell in enumerate(notebook.cells):
        cell["id"] = f"{chapter.name}-{index:02d}"
        cell.metadata.pop("lines_to_next_cell", None)  # about the script alone
    return notebook


def summary(chapter: Chapter) -> tuple[str, str]:
    """Return the chapter's title and the first sentence of its first paragraph."""
    text = next((c.source for c in read(chapter).cells if c.cell_type == "markdown"), "")
    title = next((line[2:] for line in text.splitlines() if line.startswith("# ")), chapter.name)
    # Headings, labels `(name)=`, the fences and options of boxes, and **Claim.** are not prose.
    prose = re.sub(r"^(#|\(|:|```|---).*$|\*\*[^*]+\.\*\*", "", text, flags=re.MULTILINE).strip()
    first = re.split(r"\n\n|\n- ", prose.removeprefix("- "))[0]
    paragraph = re.sub(r"[*_`]", "", " ".join(first.split()))
    sentence = re.sub(":$", ".", SENTENCE.match(paragraph)[0])
    return title.strip(), textwrap.shorten(sentence, 160, placeholder=" ...")
