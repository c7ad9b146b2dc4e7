"""Data sets that are not in the package: a test is skipped, saying why, where there are none."""

import pytest

import gradleak as gl


def load_or_skip(name, split="test"):
    try:
        return gl.data.load(name, split)
    except FileNotFoundError as error:
        pytest.skip(str(error))
