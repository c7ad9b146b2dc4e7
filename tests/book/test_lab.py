"""The live page on the first screen of the book: by pointer, by keys, by address, at rest."""

import re

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

DONE = "return document.getElementById('lab').dataset.done === 'true'"
STATUS = "return document.querySelector('.lab-status').textContent"
PICTURES = """
return [...document.querySelectorAll('.lab-pictures canvas')].map(canvas => {
  const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  return data.reduce((sum, value) => sum + value, 0) / data.length;
});
"""


@pytest.fixture
def visit(site, browser):
    def visited(state=""):
        browser.get("about:blank")  # another hash alone would not load the page again
        browser.get((site / "book" / "intro.html").as_uri() + state)
        return settled(browser)

    yield visited
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def settled(browser):
    WebDriverWait(browser, 60).until(lambda b: b.execute_script(DONE))
    said = browser.execute_script(STATUS)
    return said, [float(db) for db in re.findall(r"(-?[\d.]+) dB", said)]


def drawing(browser):
    return browser.find_element("css selector", ".lab-pictures canvas")


def test_it_shows_a_finished_attack_before_anyone_reads(visit, browser):
    said, (bayes, other, black) = visit()
    assert "50,890 numbers were sent" in said
    assert bayes > other + 3
    assert bayes > black + 10
    assert all(mean > 64 for mean in browser.execute_script(PICTURES))  # alpha alone makes 63.75
    names = [c.get_attribute("aria-label")
             for c in browser.find_elements("css selector", ".lab-pictures canvas")]  # fmt: skip
    assert len(set(names)) == 4
    loaded = "return performance.getEntriesByType('resource').map(entry => entry.name)"
    assert all(name.startswith("file:") for name in browser.execute_script(loaded))


def test_the_address_tells_the_state_and_a_wrong_one_is_passed_over(visit, browser):
    quiet, (bayes, other, _) = visit("#noise=0.001&hidden=0&digit=7&rival=l2&seed=5")
    assert bayes == other > 35
    again, _ = visit("#noise=0.001&hidden=0&digit=7&rival=l2&seed=5")
    assert again == quiet
    plain, _ = visit()
    wrong, _ = visit("#noise=loud&hidden=2&digit=12&rival=<b>&seed=-1&drawn=<script>&law=x")
    assert wrong == plain
    broken, _ = visit("#drawn=1.2.3,4 5,6")
    assert broken == plain


def test_sliders_and_menus_begin_anew(visit, browser):
    before, _ = visit()
    slider = browser.find_element("css selector", ".lab-controls input[type=range]")
    slider.send_keys(Keys.HOME)
    after, (bayes, *_) = settled(browser)
    assert after != before
    assert bayes > 30
    assert "noise=0.0001" in browser.current_url
    assert slider.get_attribute("aria-valuetext") == "0.00010"
    menus = browser.find_elements("css selector", ".lab-controls select")
    menus[-1].send_keys("cosine")
    said, _ = settled(browser)
    assert "Cosine: " in said
    assert "rival=cosine" in browser.current_url


def test_it_is_drawn_on_by_pointer_and_by_keys(visit, browser):
    visit("#noise=0.001&hidden=0")
    canvas = drawing(browser)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    pull = ActionChains(browser).move_to_element(canvas).click_and_hold()
    pull.move_by_offset(30, 5).move_by_offset(5, 30).release().perform()
    _, (bayes, *_) = settled(browser)
    assert bayes > 30
    assert "drawn=" in browser.current_url
    _, clear = browser.find_elements("css selector", ".lab-controls button")
    browser.execute_script("arguments[0].click()", clear)  # wherever it is on a small screen
    settled(browser)
    assert browser.execute_script(PICTURES)[0] == pytest.approx(63.75, abs=1)
    canvas.send_keys(Keys.SPACE, *[Keys.ARROW_RIGHT] * 5, *[Keys.ARROW_DOWN] * 5, Keys.SPACE)
    _, (bayes, *_) = settled(browser)
    assert bayes > 30
    assert browser.execute_script(PICTURES)[0] > 66


def test_with_reduced_motion_only_the_end_is_shown(visit, browser):
    calm = {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", calm)
    said, _ = visit()
    moving = """
    const done = arguments[0], label = document.querySelectorAll('.lab-pictures figcaption')[2];
    let changes = 0;
    new MutationObserver(() => changes++).observe(label, {childList: true});
    document.querySelector('.lab-controls button').click();
    const wait = () => document.getElementById('lab').dataset.done === 'true'
      ? done(changes) : setTimeout(wait, 20);
    wait();
    """
    browser.set_script_timeout(60)
    assert browser.execute_async_script(moving) == 1
    assert browser.execute_script(STATUS) != said
