"""Texts in Markdown, read back by a parser of Markdown."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from gradleak.experiment.markdown import code, words

HOSTILE = ["<img src=q onerror=alert(1)>", "`", "``", "a`b", "`</code><script>alert(1)</script>",
           "{{ 7 * 7 }}", "{raw}`x`", "$x$", "[a](javascript:alert(1))", "![x](q)", "**b**", "_i_",
           "\\", "\\`", "a\n\n# head", "a\r\n- b", "&lt;b&gt;", "<!--", "~~s~~", "|", " ", "",
           "<https://a.b>", "[^1]", "\\<b>", "` a `"]  # fmt: skip
texts = st.one_of(st.sampled_from(HOSTILE), st.text("`<>*_[]()!\\ $ab{}|&~\n"), st.text())


def inline(markdown):
    """(kind, content) of each part of one line of Markdown."""
    (line,) = [t for t in MarkdownIt("commonmark").parse(markdown) if t.type == "inline"]
    assert len(MarkdownIt("commonmark").parse(markdown)) == 3, "one paragraph"
    return [(part.type, part.content) for part in line.children]


@given(texts)
@example("` a `")
def test_code_is_code_whatever_it_holds(text):
    parts = inline(f"before {code(text)} after")
    shown = re.sub(r"\s", " ", text.replace("\0", "\ufffd"))
    assert [kind for kind, _ in parts] == ["text", "code_inline", "text"]
    assert parts[1][1].strip() == shown.strip()
    assert (parts[0][1], parts[2][1]) == ("before ", " after")


@given(texts)
def test_words_are_words_whatever_they_hold(text):
    parts = inline(f"before {words(text)} after")
    assert {kind for kind, _ in parts} <= {"text", "text_special"}
    shown = " ".join(text.replace("\0", "\ufffd").split())
    assert "".join(content for _, content in parts) == f"before {shown} after"


@pytest.mark.parametrize("text", ["gradleak run toy -p seed=1", "cpu, 2 threads"])
def test_what_needs_no_care_stays_as_it_is(text):
    assert (code(text), words(text)) == (f"`{text}`", text)
