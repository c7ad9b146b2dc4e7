"""Publishing: executed notebooks become the committed pair of the scripts."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from gradleak.book import record
from gradleak.book.chapter import BookError, Chapter, chapters, extra, find, read, root
from gradleak.book.record import Run, executed, last_run, used_records
from gradleak.files import whole


def publish(
    profile: str = "quick", names: Sequence[str] = (), home: Path | None = None
) -> list[Path]:
    """Write the outputs of a profile into `notebooks/*.ipynb` and return the paths written.

    The records that a chapter computed go into `book/results/`, and the figure of a cell tagged
    `picture` becomes `book/picture.png`, which the first page and the README show. Raises
    `BookError` before writing anything if a chapter (default: all) was not run in this profile,
    was run with parameters of its own, stopped at an error, or was edited since.
    """
    home = home or root()
    wanted = [find(name, home) for name in names] or chapters(home)
    runs = [_publishable(chapter, profile) for chapter in wanted]
    notebooks = [clean(chapter, profile) for chapter in wanted]
    for chapter, notebook in zip(wanted, notebooks, strict=True):
        with whole(chapter.published) as scratch:
            extra("nbformat").write(notebook, scratch)
        _copy_records(chapter, profile)
        _copy_picture(notebook, home / "book" / "picture.png")
    every = {run.chapter: run for run in (*record.runs_published(home), *runs)}
    record.save([every[stem] for stem in sorted(every)], record.published_file(home))
    return [chapter.published for chapter in wanted]


def publish_records(name: str, profile: str = "quick", home: Path | None = None) -> list[Path]:
    """Copy the records of a chapter's last run into `book/results` and return the paths written.

    Whatever the parameters of that run, so a page can show another data set beside its own, and
    whether or not it has ended. The committed notebook stays as it is. Raises `BookError` if the
    chapter has not been run.
    """
    chapter = find(name, home)
    if last_run(chapter, profile) is None and not used_records(chapter, profile):
        raise BookError(f"{chapter.stem} has no {profile} run: {_again(chapter, profile)}.")
    return _copy_records(chapter, profile)


def clean(chapter: Chapter, profile: str) -> Any:
    """Return the executed notebook as it is published: the script's cells plus their outputs.

    Raises `BookError` for errors and warnings in the outputs, or if the script was edited since.
    """
    ran = extra("nbformat").read(executed(chapter, profile), as_version=4)
    injected = "injected-parameters"
    ran.cells = [cell for cell in ran.cells if injected not in cell.metadata.get("tags", [])]
    notebook = read(chapter)
    if cells(ran) != cells(notebook):
        raise BookError(f"{chapter.source} was edited since its run: {_again(chapter, profile)}.")
    code = ([cell for cell in made.cells if cell.cell_type == "code"] for made in (notebook, ran))
    for count, (cell, its) in enumerate(zip(*code, strict=True), start=1):
        _check(chapter, its)
        cell.outputs, cell.execution_count = its.outputs, count
        for output in cell.outputs:
            if "execution_count" in output:  # the injected cell had a number, too
                output.execution_count = count
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def _copy_records(chapter: Chapter, profile: str) -> list[Path]:
    paths = []
    begun, ended = (executed(chapter, profile, suffix) for suffix in (".results", ".json"))
    both = begun.exists() and ended.exists()
    whole = both and ended.stat().st_mtime >= begun.stat().st_mtime
    for records in used_records(chapter, profile):
        rows, missing = (records.facts()[what] for what in ("rows", "missing"))
        if missing:
            click.echo(f"{records.name}: {missing} of {rows + missing} rows are missing yet")
        if rows:
            paths.append(records.export(chapter.root / "book" / "results", whole).path)
    return paths


def _copy_picture(notebook: Any, target: Path) -> None:
    for cell in notebook.cells:
        if "picture" in cell.metadata.get("tags", []):
            (png,) = (o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {}))
            target.write_bytes(base64.b64decode(png))


def cells(notebook: Any) -> list[tuple[str, str, list[str]]]:
    """Return what a script and its notebook must share: type, source and tags of each cell."""
    return [(c.cell_type, c.source, c.metadata.get("tags", [])) for c in notebook.cells]


def _publishable(chapter: Chapter, profile: str) -> Run:
    run = last_run(chapter, profile)
    if run is None:
        raise BookError(f"{chapter.stem} has no {profile} run: {_again(chapter, profile)}.")
    if run.parameters:
        raise BookError(
            f"The last {profile} run of {chapter.stem} had parameters of its own "
            f"({', '.join(run.parameters)}), which its published parameters cell would not show: "
            f"{_again(chapter, profile)}."
        )
    return run


def _again(chapter: Chapter, profile: str) -> str:
    return f"gradleak run {chapter.name} --profile {profile}"


def _check(chapter: Chapter, cell: Any) -> None:
    for output in cell.outputs:
        # A warning names a temporary file, so its page would differ at every run, too.
        if output.output_type == "error" or output.get("name") == "stderr":
            text = output.get("evalue") or output.get("text", "")
            raise BookError(
                f"{chapter.stem} is not published: the cell that begins with "
                f"`{cell.source.strip().splitlines()[0]}` says: {text.strip()[:300]}"
            )
