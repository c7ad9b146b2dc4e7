"""The built site in a real browser, without a network."""

import pytest
from html_pages import pages
from selenium.webdriver.support.ui import WebDriverWait

# The theme adds its script for live code twice; jupyter-book cannot leave it out.
KNOWN = ("THEBE_JS_URL",)
PROSE = ("book/intro", "book/rerun", "book/api", "book/gotchas", "book/status", "book/notation")


def size(browser, width, height=900):
    metrics = dict(width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def open_page(browser, path):
    browser.get_log("browser")  # forget the page before
    browser.get(path.as_uri())
    ready = "return document.readyState === 'complete'"
    WebDriverWait(browser, 20).until(lambda b: b.execute_script(ready))


def content(site):
    """Every page that people read, chapters included."""
    return [path for path in pages(site) if path.parent.name in ("book", "notebooks")]


def test_no_console_errors_and_no_overflow(site, browser):
    read = content(site)
    assert len(read) >= len(PROSE)
    for path in read:
        for width in (1280, 390):
            size(browser, width)
            open_page(browser, path)
            errors = [e["message"] for e in browser.get_log("browser") if e["level"] == "SEVERE"]
            assert [m for m in errors if not any(k in m for k in KNOWN)] == [], path
            wide = browser.execute_script("return document.documentElement.scrollWidth")
            assert wide <= width, f"{path} is {wide} pixels wide"


def test_maths_is_rendered(site, browser):
    with_maths = [path for path in content(site) if 'class="math' in path.read_text()]
    assert with_maths
    for path in with_maths:
        open_page(browser, path)
        count = "return document.querySelectorAll('mjx-container').length"
        WebDriverWait(browser, 20).until(lambda b, count=count: b.execute_script(count) > 0)
        assert browser.execute_script("return document.querySelectorAll('mjx-merror').length") == 0


def test_pictures_keep_their_colours_in_dark_mode(site, browser):
    for path in content(site):
        if "<img" not in path.read_text().split('<article class="bd-article"')[-1]:
            continue
        open_page(browser, path)
        filters = browser.execute_script(
            "document.documentElement.dataset.theme = 'dark';"
            "return [...document.querySelectorAll('.bd-article img')]"
            ".map(image => getComputedStyle(image).filter)"
        )
        assert set(filters) <= {"none"}, path


@pytest.mark.parametrize("width", [1280, 390])
def test_search_finds_a_word_offline(site, browser, width):
    size(browser, width)
    open_page(browser, site.parent / "html" / "search.html")
    browser.get((site / "search.html").as_uri() + "?q=parameters")
    found = "return document.querySelectorAll('#search-results li').length"
    WebDriverWait(browser, 20).until(lambda b: b.execute_script(found) > 0)
