"""Texts of others in Markdown: as what they are, whatever they hold."""

import re


def code(text: str) -> str:
    """A text as code in one line: no backtick in it ends the code."""
    text = re.sub(r"\s", " ", text)
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    bare = text.strip() and text[0] not in "` " and text[-1] not in "` "
    return f"{fence}{text}{fence}" if bare else f"{fence} {text} {fence}"


def words(text: str) -> str:
    """A text as words in one line: none of its signs marks anything, or is a tag of HTML."""
    return re.sub(r"([\\`*_{}\[\]<>$~^&])", r"\\\1", " ".join(text.split()))
