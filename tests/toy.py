"""A tiny clone of the book: this repository's configuration and pages, and one quick chapter."""

import shutil
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]

TOC = """\
format: jb-book
root: book/intro
parts:
  - caption: Chapters
    numbered: true
    chapters:
      - file: notebooks/01_toy
  - caption: Using it
    chapters:
      - file: book/rerun
      - file: book/status
"""

CHAPTER = """\
# %% [markdown]
# # A toy
#
# :::{admonition} In short
# :class: tip
# One sum, **computed** twice. It takes a second.
# :::
#
# $$ \\norm{x}^2 = \\sum_i x_i^2, \\quad x \\in \\R^n $$

# %% tags=["parameters"]
profile = "smoke"  # smoke, quick or paper
device = "auto"  # auto, cpu or cuda
seed = 0  # seed of every random number
results = ""  # folder for records; empty: results/<profile>
steps: int = 3  # number of steps
defense = "gaussian"  # gaussian, laplace | none
scales = [0.1, 0.2]  # noise scales

# %%
total = seed + sum(range(steps))
print(f"{profile} {defense}: {total}")

# %%
total
"""


def make(folder: Path, chapter: str = CHAPTER) -> Path:
    """Write the toy clone into `folder` and return it."""
    (folder / "notebooks").mkdir(parents=True)
    (folder / "notebooks" / "01_toy.py").write_text(chapter)
    (folder / "_toc.yml").write_text(TOC)
    shutil.copy(REPO / "_config.yml", folder)
    shutil.copytree(REPO / "book" / "_static", folder / "book" / "_static")
    for name in ("rerun.md", "status.md", "references.bib"):
        shutil.copy(REPO / "book" / name, folder / "book")
    (folder / "book" / "intro.md").write_text("# Toy\n\nSee {doc}`../notebooks/01_toy`.\n")
    return folder


def edit(path: Path, old: str, new: str) -> None:
    """Replace a piece of a file that must be there."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
