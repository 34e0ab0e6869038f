"""report.html in a real browser: nothing is complained about, nothing is too wide, the numbers are right.

Slow to install rather than to run, so that .ci/long alone has what it needs: Chromium with its driver
and Selenium.
"""

from __future__ import annotations

import shutil

import pytest

from nnlite.transfer import FinetuneConfig, finetune

selenium = pytest.importorskip("selenium", reason="Selenium drives the browser; .ci/long brings it")
DRIVER, CHROMIUM = shutil.which("chromedriver"), shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    not (DRIVER and CHROMIUM), reason="no chromium and chromedriver; apt-get install chromium-driver"
)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium.webdriver import Chrome
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def run(mobilenet_path, clipart, tmp_path_factory):
    """A real run on names that try to run something."""
    root = tmp_path_factory.mktemp("run")
    for part, count in (("train", 4), ("val", 3)):
        for name, called in (("bird", "<script>alert(1)<"), ("plant", "a&b"), ("music", "music")):
            folder = root / "data" / part / called
            folder.mkdir(parents=True)
            for n, picture in enumerate(sorted((clipart / part / name).iterdir())[:count]):
                shutil.copy(picture, folder / f"{n}<img src=x onerror=alert(2)>.jpg")
    config = FinetuneConfig(
        str(mobilenet_path), str(root / "data"), str(root / "tuned.onnx"), run_dir=str(root / "run"),
        head_epochs=3, epochs=2, views=2, batch_size=4, size=64,
    )  # fmt: skip
    return finetune(config)


def show(browser, run, width, scheme="light"):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get((run.run_dir / "report.html").absolute().as_uri())


def texts(browser, selector):
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(one => one.textContent)", selector
    )


def test_the_log_of_the_browser_is_heard(browser, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<!DOCTYPE html><script>console.error('heard'); undefined_name()</script>")
    browser.get(page.as_uri())
    said = " ".join(entry["message"] for entry in browser.get_log("browser"))
    assert "heard" in said and "undefined_name" in said


@pytest.mark.parametrize("width", [1280, 390, 320])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_complaints_and_nothing_too_wide(browser, run, width, scheme):
    show(browser, run, width, scheme)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    loaded = browser.execute_script(
        "return [...document.images].map(image => image.complete && image.naturalWidth > 0)"
    )
    assert len(loaded) >= 9 and all(loaded)
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


def test_the_matrix_has_the_right_numbers(browser, run):
    show(browser, run, 1280)
    cells = [int(text) for text in texts(browser, "#confusion-matrix td")]
    assert cells == [count for row in run.metrics["confusion"] for count in row]
    assert texts(browser, "#confusion-matrix tbody th") == [e["name"] for e in run.metrics["classes"]]
    assert f"{run.metrics['accuracy']:.1%}" == texts(browser, ".tile b")[0]


def test_the_curves_are_drawn_where_the_numbers_are(browser, run):
    show(browser, run, 1280)
    history = [record for record in run.history if record.phase != "scratch"]
    boxes = browser.execute_script(
        "return [...document.querySelectorAll('#loss-chart circle.train')].map(dot => {"
        "  const box = dot.getBoundingClientRect(); return [box.x, box.y]})"
    )
    assert len(boxes) == len(history) == 5
    losses = [record.loss for record in history]
    order = sorted(range(5), key=lambda n: boxes[n][1])  # higher on the page is a larger loss
    assert [losses[n] for n in order] == sorted(losses, reverse=True)
    assert [x for x, _ in boxes] == sorted(x for x, _ in boxes)
    rows = texts(browser, "#history tbody tr td:nth-child(3)")
    assert rows == [f"{loss:.4f}" for loss in losses]


def test_names_are_text_and_nothing_else(browser, run):
    show(browser, run, 1280)
    assert browser.execute_script("return document.scripts.length") == 0
    assert "<script>alert(1)<" in browser.execute_script("return document.body.innerText")
    assert "<img src=x onerror=alert(2)>.jpg" in browser.execute_script("return document.body.innerText")
    assert not browser.execute_script("return document.querySelectorAll('[onerror], img[src=x]').length")
