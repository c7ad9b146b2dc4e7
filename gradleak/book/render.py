"""Rendering: executed notebooks and prose pages become one folder of HTML."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from gradleak.book.chapter import BookError, Chapter, chapters, extra, root
from gradleak.book.execute import ensure, python_path
from gradleak.book.pages import write_generated
from gradleak.book.record import digest, package_files

FOLDED = {
    "parameters": "Parameters and their defaults",
    "injected-parameters": "Parameters of this run",
}

TOY = """\
:::{admonition} A toy
:class: warning
This page was run on this machine in the profile `smoke`: a few digits of eight by eight pixels,
attacked for seconds. It shows that everything works. Its numbers say nothing about the attacks;
those that do are in the published book, which `gradleak book --published` shows.
:::"""


def build(profile: str = "smoke", published: bool = False, home: Path | None = None) -> Path:
    """Build the site and return the path of its index.html.

    Chapters run in `profile` where something they use has changed; with `published` nothing runs
    and the committed notebooks are shown. Raises `BookError` if a cell fails or Sphinx warns;
    the last good site then stays as it was.
    """
    home = home or root()
    label = "published" if published else profile
    (home / "_build").mkdir(exist_ok=True)
    with extra("filelock").FileLock(home / "_build" / f"{label}.lock"):  # one process at a time
        return _build(label, published, home)


def _build(label: str, published: bool, home: Path) -> Path:
    every = chapters(home)
    notebooks = [_committed(c) for c in every] if published else ensure(every, label)
    stage = _stage(home, label, notebooks, published)
    site = home / "_build" / "site" / label / "html"
    stamp = site / ".fingerprint"
    key = digest(home, [*stage.glob("**/*"), *package_files(home)])
    if stamp.is_file() and stamp.read_text() == key:
        click.echo("Site: nothing changed since it was built")
        return site / "index.html"
    click.echo("Site: rendering (about 15 seconds)")
    html = _render(home, stage, home / "_build" / "render" / label)
    (html / stamp.name).write_text(key)
    shutil.rmtree(site, ignore_errors=True)
    site.parent.mkdir(parents=True, exist_ok=True)
    html.rename(site)
    return site / "index.html"


def _committed(chapter: Chapter) -> Path:
    if not chapter.published.is_file():
        raise BookError(
            f"{chapter.stem} has no published outputs: gradleak run {chapter.name} "
            f"--profile quick, then gradleak publish {chapter.name}."
        )
    return chapter.published


def _stage(home: Path, label: str, notebooks: list[Path], published: bool) -> Path:
    stage = home / "_build" / "stage" / label
    shutil.rmtree(stage, ignore_errors=True)
    shutil.copytree(home / "book", stage / "book")
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(home / name, stage)
    (stage / "notebooks").mkdir()
    for path in notebooks:
        notebook = extra("nbformat").read(path, as_version=4)
        _fold(notebook)
        if label == "smoke":
            _mark_as_toy(notebook)
        extra("nbformat").write(notebook, stage / "notebooks" / path.name)
    write_generated(home, stage / "book" / "_generated", published)
    return stage


def _fold(notebook: Any) -> None:
    # Widget state would make the page load scripts from the network.
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        for tag, prompt in FOLDED.items():
            if tag in tags:
                cell.metadata["tags"] = [*tags, "hide-input"]
                cell.metadata["mystnb"] = {"code_prompt_show": prompt}


def _mark_as_toy(notebook: Any) -> None:
    first = next(cell for cell in notebook.cells if cell.cell_type == "markdown")
    first.source = re.sub(r"^# .+$", rf"\g<0>\n\n{TOY}", first.source, count=1, flags=re.MULTILINE)


def _render(home: Path, stage: Path, out: Path) -> Path:
    extra("jupyter_book")
    # Its script may lie anywhere, and it has no `python -m`.
    program = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    shutil.rmtree(out, ignore_errors=True)  # old doctrees would hide warnings
    out.mkdir(parents=True)
    command = [*program, "build", stage, "--path-output", out, "-W", "--keep-going"]
    # The API page imports gradleak.
    environment = {**os.environ, "PYTHONPATH": python_path(home), "NO_COLOR": "1"}
    piped = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    ran = subprocess.run(command, env=environment, **piped)
    if ran.returncode != 0:
        raise BookError(_warnings(ran.stdout, stage, out))
    return out / "_build" / "html"


def _warnings(said: str, stage: Path, out: Path) -> str:
    log = out / "sphinx.log"
    log.write_text(re.sub(r"\x1b\[[0-9;]*[a-zA-Z]", "", said))
    lines = log.read_text().splitlines()
    found = [line for line in lines if re.search(r"\b(WARNING|ERROR|CRITICAL)\b", line)]
    # Every warning shown once, with the name of the file that people edit.
    shown = list(dict.fromkeys(line.replace(f"{stage}/", "") for line in found))[:8] or lines[-25:]
    head = "The book has warnings, so the last good site was kept:"
    return "\n  ".join([head, *shown]) + f"\nWhole log: {log}"
