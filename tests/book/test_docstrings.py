"""Docstrings become the pages of the interface."""

from gradleak.book.docstrings import to_rst


def test_docstrings_are_plain_sentences():
    lines = ["|x| of `x_` and (N, *shape):", "", "    a * b", "", "loss: any_ one,", "    or two"]
    assert to_rst(lines) == [
        r"\|x\| of ``x_`` and (N, \*shape):",
        "",
        "::",
        "",
        "    a * b",
        "",
        r"- **loss**: any\_ one,",
        "  or two",
        "",
    ]


def test_each_parameter_of_a_docstring_is_an_item():
    found = to_rst(["steps: how many. lr: how far", "in pixels. As Kingma says: slow."])
    assert found[:4] == [
        "- **steps**: how many.",
        "- **lr**: how far",
        "  in pixels. As Kingma says: slow.",
        "",
    ]
