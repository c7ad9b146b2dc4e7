"""A noisy client of six digits and what it released, where a file has none of its own."""

import pytest

import gradleak as gl


@pytest.fixture(scope="package")
def digits():
    """Six digits and their labels."""
    return gl.data.batch("digits", range(6))


@pytest.fixture(scope="package")
def client():
    """A client that adds noise."""
    return gl.Client(gl.models.cnn((1, 8, 8), 10), gl.GaussianNoise(0.1))


@pytest.fixture(scope="package")
def view(client, digits):
    """What the server sees of six of them."""
    return client.release(*digits)
