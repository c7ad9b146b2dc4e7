"""What the tests of clients share."""

import pytest

import gradleak as gl


@pytest.fixture
def model():
    return gl.models.cnn((1, 8, 8), classes=10)
