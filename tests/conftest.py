"""Fixtures that several test files share: the built site, a toy clone of it, a browser."""

import os
import shutil
from pathlib import Path

# Before torch loads. Threads that wait let others compute; workers side by side take one each.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
import toy
from hypothesis import settings

from gradleak import book

REPO = Path(__file__).resolve().parents[1]
# No network, no first-run pages, and a profile of its own for each browser.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
]

# No timing in a test, and the same examples each time: what passes here passes anywhere.
# `pytest --hypothesis-profile=explore` draws others.
settings.register_profile("gradleak", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, derandomize=False, max_examples=1000)
settings.load_profile("gradleak")


@pytest.hookimpl(tryfirst=True)  # before marks choose among the items
def pytest_collection_modifyitems(items):
    """Mark what uses the site or a browser.

    Slow tests go first, so that no worker is left with one at the end.
    """
    for item in items:
        used = {"site", "browser"} & set(item.fixturenames)
        if used:
            item.add_marker(pytest.mark.book)
        if "browser" in used:
            item.add_marker(pytest.mark.browser)
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def _same_numbers_every_time():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def site():
    """The real book, built in the smoke profile, as a folder of HTML."""
    return book.build("smoke", home=REPO).parent


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A toy clone of the book, as the working folder."""
    monkeypatch.chdir(toy.make(tmp_path / "clone"))
    return Path.cwd()


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A headless Chromium without a network."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (program and driver):
        pytest.skip("needs chromium and chromedriver: apt-get install chromium chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = program
    profile = tmp_path_factory.mktemp("chromium")
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()
