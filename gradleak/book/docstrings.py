"""A Sphinx extension: the package's docstrings are plain sentences, not reStructuredText.

So |x| and (N, *shape) mean what they say, `name` and indented paragraphs are code, and what
reads `name: what it is` becomes a list.
"""

import re
from collections.abc import Iterable
from typing import Any

CODE = re.compile(r"(`+[^`]+`+)")
ITEM = re.compile(r"([a-z]\w*): +(.+)")
NEXT_ITEM = re.compile(r"(?<=[.)]) +(?=[a-z]\w*: )")


def setup(app: Any) -> dict[str, bool]:
    """Connect to autodoc; called by Sphinx."""
    app.connect("autodoc-process-docstring", _process)
    return {"parallel_read_safe": True}


def to_rst(lines: Iterable[str]) -> list[str]:
    """Return a docstring's lines as reStructuredText."""
    paragraphs = "\n".join(lines).strip("\n").split("\n\n")
    return [*"\n\n".join(map(_paragraph, paragraphs)).split("\n"), ""]


def _paragraph(text: str) -> str:
    if text.startswith("    "):
        return f"::\n\n{text}"
    if ITEM.search(text):
        text = NEXT_ITEM.sub("\n", text)
    lines = [_inline(line) for line in text.split("\n")]
    first = next((i for i, line in enumerate(lines) if ITEM.match(line)), len(lines))
    for i, line in enumerate(lines[first:], start=first):
        item = ITEM.match(line)
        lines[i] = f"- **{item[1]}**: {item[2]}" if item else f"  {line.strip()}"
    return "\n".join([*lines[:first], "", *lines[first:]]).strip("\n")


def _process(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    # A field whose default is another package's function would show that function's docstring.
    ours = (getattr(value, "__module__", None) or "gradleak").startswith("gradleak")
    lines[:] = to_rst(lines) if ours else []


def _inline(line: str) -> str:
    parts = CODE.split(line)  # every other part is code
    # A word that ends in an underscore would be a link.
    parts[::2] = [re.sub(r"([\\*|]|_(?!\w))", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"``{part.strip('`')}``" for part in parts[1::2]]
    return "".join(parts)
