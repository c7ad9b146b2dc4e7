"""The strength slider: its HTML read, moved in a real browser, and its live panel run."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from gradleak.figures.html import Frame, Row
from gradleak.figures.slider import strength

X = torch.rand(4, 1, 6, 5, generator=torch.Generator().manual_seed(0))


def frame(label, *, shift=0.0, images=X):
    """The private images, and an attack's that depend on the label."""
    bad = (images * (1 - float(label)) + shift).clamp(0, 1)
    return Frame(label, [Row("private x", images), Row("Bayes", bad, [10 + shift] * len(images))])


def slider(**options):
    return strength(
        {
            "Gaussian noise": [frame(label) for label in ("0", "0.1", "0.5")],
            "Laplace noise": [frame(label, shift=0.3) for label in ("0.1", "0.2", "0.3", "0.4")],
        },
        **options,
    )


def pictures(html):
    """Every PNG in `html`, decoded, in order."""
    found = re.findall(r"data:image/png;base64,([^'\"]+)", html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in found]


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_the_images_to_the_byte(channels):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, channels, 7, 9), dtype=np.uint8)
    html = strength({"none": [Frame("0", [Row("x", pixels / 255)])]}).html()
    for shown, image in zip(pictures(html), pixels, strict=False):
        np.testing.assert_array_equal(shown, image.transpose(1, 2, 0).squeeze())


def test_alternative_text_and_scores():
    rows = [Row("private x", X), Row("L2 & <TV>", X, torch.tensor([9.96, 20, np.inf, np.nan]))]
    html = strength({"none": [Frame("0.1", rows)]}, unit="dB").html()
    assert "alt='private x 1 of 4'" in html
    assert "alt='L2 &amp; &lt;TV&gt; 1 of 4: 10.0 dB'" in html
    assert all(text in html for text in (">10.0<", ">20.0<", ">∞<", ">n/a<"))
    assert html.count("<img") == html.count("<img class='dark-light' alt='")
    assert "<TV>" not in re.sub(r"<script.*</script>", "", html, flags=re.DOTALL)


def test_equal_rows_are_stored_once():
    # The start frame is in the page and in the data: 4 private, 4 shown first, 7 x 4 stored.
    assert len(pictures(slider().html())) == 4 + 4 + 7 * 4


def test_the_same_pictures_give_the_same_page():
    assert slider().html() == slider().html()
    assert slider().html() != slider(start="0.1").html()
    assert "id=" not in slider().html()


def test_28_frames_of_mnist_size_stay_small():
    rng = np.random.default_rng(0)
    digits = load_digits().images[:8, None] / 16
    x = np.pad(np.kron(digits, np.ones((3, 3))), [(0, 0), (0, 0), (2, 2), (2, 2)])
    scores = [9.5] * 8

    def noisy(scale):
        return np.clip(x + scale * rng.standard_normal(x.shape), 0, 1)

    scales = np.geomspace(0.001, 1, 7)
    rows = [
        [Row("x", x)] + [Row(name, noisy(s), scores) for name in ("Bayes", "L2")] for s in scales
    ]
    frames = [Frame(f"{s:.3f}", row) for s, row in zip(scales, rows, strict=True)]
    assert x.shape == (8, 1, 28, 28)
    assert len(strength({name: frames for name in "abcd"}).html()) < 400_000


def test_text_lists_the_means():
    assert slider().text().splitlines()[0] == "Gaussian noise, noise scale 0: Bayes 10.0 dB"
    assert len(slider().text().splitlines()) == 7


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: strength({}), "no frames"),
        (lambda: strength({"Gaussian noise": []}), "'Gaussian noise' has no frames"),
        (lambda: strength({"": [frame("0")]}), "a choice has the label ''"),
        (lambda: strength({"a": [frame("0"), frame("0")]}), "two frames of the same label"),
        (lambda: slider(start="0.2"), "unknown start '0.2'"),
        (lambda: slider().panel(), "make it with live="),
        (
            lambda: strength({"a": [Frame("low", [Row("x", X)])]}, live=lambda c, s: frame("0")),
            "'low' is not a number",
        ),
    ],
)
def test_bad_input_says_what_to_do(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_static_run_stores_html_and_text_only(monkeypatch):
    # As papermill runs it: an interactive kernel, and GRADLEAK_STATIC.
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda value, raw=False: shown.append(value))
    monkeypatch.setattr("IPython.get_ipython", lambda: type("Shell", (), {"kernel": object()}))
    live = slider(live=lambda choice, value: frame("0"))
    monkeypatch.setenv("GRADLEAK_STATIC", "1")
    live._ipython_display_()
    assert [set(bundle) for bundle in shown] == [{"text/html", "text/plain"}]
    monkeypatch.delenv("GRADLEAK_STATIC")
    live._ipython_display_()
    assert [type(value).__name__ for value in shown[1:]] == ["dict", "VBox"]


def test_the_live_panel_runs_the_attack():
    calls = []

    def live(choice, value):
        assert button.disabled
        calls.append((choice, value))
        if value < 0:
            raise ValueError("scale must be positive\nand finite")
        return frame(f"{value:g}") if value else None

    panel = slider(start="0.5", live=live).panel()
    line, status, result = panel.children
    choice, value, button = line.children
    button.click()
    assert calls == [("Gaussian noise", 0.5)]
    assert status.value.startswith("Gaussian noise, noise scale 0.5: Bayes 10.0 dB (")
    np.testing.assert_array_equal(
        pictures(result.value)[0], np.rint(X[0, 0].double().numpy() * 255)
    )

    choice.value, value.value = "Laplace noise", -1
    button.click()
    assert calls[-1] == ("Laplace noise", -1)
    assert status.value == "ValueError: scale must be positive"
    assert not button.disabled
    assert result.value == ""

    value.value = 0
    button.click()
    assert status.value == "TypeError: live must return a Frame, not NoneType"


def page(tmp_path, *sliders):
    """The address of a page on the disk that shows the sliders."""
    file = tmp_path / "page.html"
    head = "<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    file.write_text(head + "".join(one.html() for one in sliders), encoding="utf-8")
    return file.as_uri()


@pytest.fixture
def two(browser, tmp_path):
    """The elements of two sliders on one page."""
    one = strength({"none": [frame("0"), frame("1")]}, name="rate")
    browser.get(page(tmp_path, slider(start="0.1"), one))
    return browser.find_elements("class name", "gl-strength")


def find(element, selector):
    return element.find_element("css selector", selector)


def sources(element):
    images = element.find_elements("css selector", "img")
    assert all(image.is_displayed() and image.get_property("naturalWidth") for image in images)
    return [image.get_attribute("src") for image in images]


def test_arrow_keys_change_the_pictures(two):
    first, second = two
    before, other = sources(first), sources(second)
    move = find(first, "input")
    assert find(first, "output").text == "0.1"
    move.send_keys("\ue014")  # arrow right
    assert find(first, "output").text == "0.5"
    assert move.get_attribute("aria-valuetext") == "noise scale 0.5: Bayes 10.0 dB"
    after = sources(first)
    assert after[:4] == before[:4]  # the private images
    assert all(a != b for a, b in zip(after[4:], before[4:], strict=True))
    move.send_keys("\ue012")  # arrow left
    assert sources(first) == before
    assert sources(second) == other
    find(second, "input").send_keys("\ue014")
    assert find(second, "output").text == "1"
    assert sources(first) == before


def test_the_menu_switches_the_frames_and_keeps_the_strength(two):
    first = two[0]
    before = sources(first)
    menu = find(first, "select")
    menu.send_keys("Laplace")
    move, output = find(first, "input"), find(first, "output")
    assert output.text == "0.1"
    assert move.get_attribute("max") == "3"
    assert find(first, ".gl-ticks").text.split() == ["0.1", "0.2", "0.3", "0.4"]
    assert "mean 10.3 dB" in first.text
    assert sources(first)[4:] != before[4:]
    move.send_keys("\ue010")  # end
    assert output.text == "0.4"
    menu.send_keys("Gaussian")  # has no 0.4 and fewer frames: the nearest end
    assert output.text == "0.5"


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_is_wider_than_the_screen(browser, tmp_path, width):
    wide = torch.rand(8, 3, 32, 32)
    long = "a random mask of a known rate, followed by Gaussian noise"
    frames = [frame(f"0.{k:04}", images=wide) for k in range(28)]
    address = page(tmp_path, strength({long: frames, "none": frames[:1]}))
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        browser.get(address)
        assert browser.execute_script("return document.documentElement.scrollWidth") == width
        root = find(browser, ".gl-strength")
        tops = {image.location["y"] for image in root.find_elements("css selector", "img")}
        assert len(tops) == 2  # two rows, each in one line
        assert len(sources(root)) == 16
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_without_scripts_the_first_pictures_stay(browser, tmp_path):
    address = page(tmp_path, slider(start="0.1"))
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(address)
        root = find(browser, ".gl-strength")
        assert "noise scale 0.1" in root.text
        assert not find(root, "input").is_displayed()
        assert all(image.is_displayed() for image in root.find_elements("css selector", "img"))
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
