"""The real book: its committed notebooks, its pages, and the site built from them."""

import pytest
import toy
import yaml
from html_pages import broken, is_remote, pages
from published import check_published

from gradleak import book

CHAPTERS = book.chapters(toy.REPO)
PUBLISHED = [chapter for chapter in CHAPTERS if chapter.published.is_file()]


@pytest.mark.parametrize("chapter", PUBLISHED, ids=lambda chapter: chapter.stem)
def test_published_notebook_is_the_script_and_its_outputs(chapter):
    check_published(chapter)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)
def test_chapters_take_the_common_parameters_and_explain_all(chapter):
    parameters = book.parameters(chapter)
    assert {"profile", "device", "seed", "results"} <= set(parameters)
    assert all(parameter.help for parameter in parameters.values())


def test_contents_list_every_chapter():
    parts = yaml.safe_load((toy.REPO / "_toc.yml").read_text())["parts"]
    files = [entry["file"] for part in parts for entry in part["chapters"]]
    listed = [name for name in files if name.startswith("notebooks/")]
    assert listed == [f"notebooks/{chapter.stem}" for chapter in CHAPTERS]


# What the engine and the tools are made of, which nobody imports.
INNER = {
    "batch", "checks", "chunks", "cli", "convolution", "copies", "dispatch", "files", "half",
    "hooks", "html", "look", "loop", "markdown", "names", "normalisation", "outer",
    "products", "randomness", "recording", "replay", "scales", "stack", "threads", "turns",
    "version", "vjps",
}  # fmt: skip


def test_api_page_lists_every_module():
    page = (toy.REPO / "book" / "api.md").read_text()
    package = toy.REPO / "gradleak"
    files = [p.relative_to(toy.REPO) for p in package.rglob("*.py") if p.parent.name != "book"]
    files = [p for p in files if p.stem not in INNER and not p.stem.startswith("_")]
    modules = {".".join(p.with_suffix("").parts) for p in files}
    assert modules == {m for m in modules if f"automodule:: {m}\n" in page}


def test_site_loads_nothing_remote(site):
    every = pages(site)
    assert len(every) > 5
    remote = {a for page in every.values() for a in page.loads if is_remote(a)}
    assert remote == set()
    styles = "".join(path.read_text() for path in (site / "_static").glob("*.css"))
    assert "url(http" not in styles.replace('"', "").replace("'", "")


def test_local_links_and_anchors_resolve(site):
    assert broken(site) == []
