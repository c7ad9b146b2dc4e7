"""Rows of pictures as HTML: what is drawn, what is said, what is refused."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gradleak.figures.html import Frame, Row, png, render, spoken

X = torch.rand(4, 1, 6, 5)


@settings(max_examples=20)
@given(height=st.integers(1, 9), width=st.integers(1, 9), colour=st.booleans())
def test_a_png_holds_the_pixels_as_they_are(height, width, colour):
    shape = (height, width, 3) if colour else (height, width)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png(pixels)))), pixels)


def test_a_frame_in_words_gives_the_means():
    frame = Frame("0.1", [Row("private x", X), Row("L2", X, [10.0, 20, 12, 16])])
    assert spoken(frame, "noise scale", "dB") == "noise scale 0.1: L2 14.5 dB"
    assert spoken(Frame("0", [Row("private x", X)]), "noise scale", "dB") == "noise scale 0"


@pytest.mark.parametrize(("count", "columns"), [(4, 4), (10, 10), (11, 6), (25, 9)])
def test_lines_of_pictures_are_of_equal_length(count, columns):
    (html,) = render(Frame("0.1", [Row("x", torch.rand(count, 3, 2, 3))]), "dB")
    assert f"--columns:{columns};--shape:3/2" in html
    assert html.count("<img") == count


def test_what_cannot_be_drawn_is_told():
    for make, message in (
        (lambda: Row("x", X[0]), r"\(1, 6, 5\): they must be \(n, C, H, W\)"),
        (lambda: Row("x", torch.zeros(2, 4, 5, 5)), "C = 1 or 3"),
        (lambda: Row("x", X[:0]), "n > 0"),
        (lambda: Row("x", X * 255), "divide bytes by 255"),
        (lambda: Row("x", X - 0.5), "clamp"),
        (lambda: Row("x", X * torch.nan), r"must lie in \[0, 1\]"),
        (lambda: Row("x", X, [1.0]), "'x' has 4 images but 1 scores"),
        (lambda: Row(" ", X), "a row has the label ' ': give it a text that says what it is"),
        (lambda: Frame("", [Row("x", X)]), "a frame has the label ''"),
        (lambda: Frame(0.1, [Row("x", X)]), "a frame has the label 0.1"),
        (lambda: Frame("0", [Row("a", X), Row("b", X[:2])]), "rows of different lengths"),
        (lambda: Frame("0", []), "has no rows"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
