"""What a clone of the book contains: its chapters, and the parameters of each."""

from __future__ import annotations

import ast
import importlib
import io
import re
import textwrap
import tokenize
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from gradleak.names import choose

PROFILES = ("smoke", "quick", "paper")
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
PROFILE_HELP = "smoke: seconds, on the embedded digits; quick: minutes, on 2 cores; paper: a GPU"


class BookError(click.ClickException):
    """Something the reader can put right; the message says how."""


@dataclass(frozen=True)
class Chapter:
    """One chapter of the clone at `root`; `stem` is its file name, such as `02_comparison`."""

    root: Path
    stem: str

    @property
    def name(self) -> str:
        """The short name, such as `comparison`."""
        return self.stem.split("_", 1)[1]

    @property
    def source(self) -> Path:
        """The percent script that people edit."""
        return self.root / "notebooks" / f"{self.stem}.py"

    @property
    def published(self) -> Path:
        """The notebook with outputs that is paired with the script."""
        return self.source.with_suffix(".ipynb")


@dataclass(frozen=True)
class Parameter:
    """One line of a chapter's parameters cell; `kind` is its type as written or inferred."""

    name: str
    default: Any
    kind: str
    help: str


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
        if (folder / "_toc.yml").is_file() and (folder / "notebooks").is_dir():
            return folder
    raise BookError(
        f"There is no book in {start} or above it: go to your clone of gradleak "
        "(the folder with _toc.yml and notebooks/) and try again."
    )


def chapters(home: Path) -> list[Chapter]:
    """Return the chapters of a clone, in reading order."""
    return [Chapter(home, path.stem) for path in sorted(home.glob("notebooks/[0-9][0-9]*_*.py"))]


def find(name: str, home: Path) -> Chapter:
    """Return the chapter called `name` (`comparison` or `02_comparison`), or raise `BookError`."""
    every = {chapter.name: chapter for chapter in chapters(home)}
    by_stem = {chapter.stem: chapter for chapter in every.values()}
    return by_stem.get(name) or every[pick("chapter", name, every)]


def read(chapter: Chapter) -> Any:
    """Return the chapter's script as a notebook whose cell ids are the same at every reading."""
    notebook = extra("jupytext").read(chapter.source)
    notebook.metadata = {"kernelspec": KERNEL}
    for index, cell in enumerate(notebook.cells):
        cell["id"] = f"{chapter.name}-{index:02d}"
    return notebook


def summary(chapter: Chapter) -> tuple[str, str]:
    """Return the chapter's title and the first sentence of its first paragraph."""
    text = next((c.source for c in read(chapter).cells if c.cell_type == "markdown"), "")
    title = next((line[2:] for line in text.splitlines() if line.startswith("# ")), chapter.name)
    # Headings, labels `(name)=`, the fences and options of boxes, and **Claim.** are not prose.
    prose = re.sub(r"^(#|\(|:|```|---).*$|\*\*[^*]+\.\*\*", "", text, flags=re.MULTILINE).strip()
    paragraph = re.sub(r"[*_`]", "", " ".join(prose.split("\n\n")[0].split()))
    sentence = re.split(r"[.:]\s", f"{paragraph} ")[0] + "."
    return title.strip(), textwrap.shorten(sentence, 160, placeholder=" ...")


def parameters(chapter: Chapter) -> dict[str, Parameter]:
    """Return the chapter's parameters by name, in the order of its parameters cell.

    Raises `BookError` if no cell is tagged `parameters` or a default is not a plain value.
    """
    cells = (c for c in read(chapter).cells if "parameters" in c.metadata.get("tags", []))
    cell = next(cells, None)
    if cell is None:
        raise BookError(f"{chapter.source} has no cell tagged `parameters`: add one.")
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(cell.source).readline)
        if token.type == tokenize.COMMENT
    }
    found = {}
    for line in ast.parse(cell.source).body:
        if isinstance(line, (ast.Assign, ast.AnnAssign)):
            parameter = _parameter(chapter, line, comments.get(line.end_lineno or 0, ""))
            found[parameter.name] = parameter
    return found


def _parameter(chapter: Chapter, line: ast.Assign | ast.AnnAssign, comment: str) -> Parameter:
    target = line.target if isinstance(line, ast.AnnAssign) else line.targets[0]
    name = ast.unparse(target)
    try:
        default = ast.literal_eval(line.value) if line.value else None
    except ValueError as error:
        raise BookError(
            f"{chapter.source}: the default of {name!r} must be a plain value, not a computed one."
        ) from error
    annotated = isinstance(line, ast.AnnAssign)
    kind = ast.unparse(line.annotation) if annotated else type(default).__name__
    return Parameter(name, default, "any" if kind == "NoneType" else kind, comment)


def check(chapter: Chapter, given: Mapping[str, Any]) -> None:
    """Raise `BookError` at the first name in `given` that is no parameter of the chapter."""
    known = parameters(chapter)
    for name in given:
        pick(f"parameter of {chapter.name}", name, known)


def assignments(chapter: Chapter, texts: Iterable[str]) -> dict[str, Any]:
    """Return the values in `name=value` texts, each read as its parameter's type.

    Raises `BookError` for an unknown name, a missing `=` or a value of another type.
    """
    known = parameters(chapter)
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise BookError(f"-p wants name=value, not {text!r}.")
        name = pick(f"parameter of {chapter.name}", name.strip(), known)
        values[name] = _typed(known[name], value.strip())
    return values


def _typed(parameter: Parameter, text: str) -> Any:
    value = _plain(text)
    kinds = {kind.split("[")[0].strip() for kind in parameter.kind.split("|")}
    kind = type(value).__name__
    if kinds & {"any", kind} or (value is None and "None" in kinds):
        return value
    if kind == "int" and "float" in kinds:
        return float(value)
    if kind == "list" and "tuple" in kinds:
        return value
    if "str" in kinds:
        return text
    example = f", such as {parameter.default!r}" if parameter.default is not None else ""
    raise BookError(f"{parameter.name} wants type {parameter.kind}{example}; not {text!r}.")


def _plain(text: str) -> Any:
    # YAML alone would read 1e-3 as a string, and Python alone would not read [gaussian, laplace].
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        pass
    yaml = extra("yaml")
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
