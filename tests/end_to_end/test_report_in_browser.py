"""report.html in a real headless Chromium: its figures are result.json's, and nothing overlaps or scrolls sideways."""

import dataclasses
import json
import shutil

import pytest
from report_facts import class_facts, number_facts

from trainer.data.labels import format_number
from trainer.report import build

# As Debian, Ubuntu and Google name it.
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="no chromium and chromedriver on the PATH")

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
WIDTHS, SCHEMES = (1280, 390), ("light", "dark")
LONG = "word" * 2000
HOSTILE = (
    '<script>document.title = "taken"</script><img src=x onerror="document.title = 1">',
    "</blockquote></section><style>*{display:none}</style>",
    LONG,
    "\u202e\u0645\u0631\u062d\u0628\u0627 \u0628\u0643 right to left \u05e9\u05dc\u05d5\u05dd",
    "\U0001f600\U0001f469\u200d\U0001f469\u200d\U0001f467" * 40,
    "nul \0, escape \x1b[31m, bell \a, quotes \" ' ` &amp; &lt;",
)

# Every piece of text with its box, as far as it is visible: what a box scrolls out of sight is clipped.
TEXT_BOXES = """
const boxes = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode;
  if (!node.textContent.trim()) continue;
  const range = document.createRange();
  range.selectNodeContents(node);
  const clip = node.parentElement.closest('.scroll')?.getBoundingClientRect();
  for (const box of range.getClientRects()) {
    const left = Math.max(box.left, clip ? clip.left : -1e9), right = Math.min(box.right, clip ? clip.right : 1e9);
    if (right - left > 1 && box.height > 1) {
      boxes.push([left, box.top, right, box.bottom, node.textContent.trim().slice(0, 40)]);
    }
  }
}
return boxes;
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium with a new profile."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def show(browser, tmp_path):
    """A function that shows a page's text or file as a device does, and returns the browser."""

    def shown(page, width: int, scheme: str):
        if isinstance(page, str):
            path = tmp_path / "report.html"
            path.write_text(page, encoding="utf-8")
        else:
            path = page
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        for log in ("browser", "performance"):
            browser.get_log(log)
        browser.get(path.as_uri())
        return browser

    return shown


def hostile_facts():
    """Facts with these texts in every place where a user's text is shown."""
    facts = class_facts(("<b>neg</b> $x$ & 'quoted'", LONG[:200]))
    test = facts.columns["test"]
    texts = [HOSTILE[i % len(HOSTILE)] for i in range(len(test.texts))]
    columns = {**facts.columns, "test": dataclasses.replace(test, texts=texts, ids=texts)}
    predictions = {**facts.predictions, "test": dataclasses.replace(facts.predictions["test"], ids=texts)}
    return dataclasses.replace(facts, columns=columns, predictions=predictions, model_dir=HOSTILE[0] + LONG[:300])


def many_classes():
    return class_facts(tuple(f"an intent with number {i}" for i in range(77)))


PAGES = {"classes": class_facts, "many": many_classes, "numbers": number_facts, "hostile": hostile_facts}


@pytest.fixture(scope="module")
def built():
    """Name -> page."""
    return {name: build.build_page(make()) for name, make in PAGES.items()}


def overlaps(boxes, tolerance=3.0):
    """Pairs of texts whose boxes share more than `tolerance` pixels in both directions."""
    boxes = sorted(boxes, key=lambda box: box[1])
    found = []
    for i, (left, _, right, bottom, text) in enumerate(boxes):
        for other_left, other_top, other_right, other_bottom, other in boxes[i + 1 :]:
            if other_top > bottom - tolerance:
                break
            width = min(right, other_right) - max(left, other_left)
            if width > tolerance and min(bottom, other_bottom) - other_top > tolerance:
                found.append((text, other))
    return found


def brightness(color: str) -> float:
    """0 to 255, of a color as rgb(r, g, b)."""
    return sum(map(float, color.partition("(")[2].rstrip(")").split(",")[:3])) / 3


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_its_width_and_no_text_overlaps(name, width, scheme, built, show):
    browser = show(built[name], width, scheme)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    boxes = browser.execute_script(TEXT_BOXES)
    assert len(boxes) > 100
    assert not [box for box in boxes if box[2] > width + 0.5]
    assert not overlaps(boxes)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_page_has_the_colors_of_the_scheme(scheme, built, show):
    browser = show(built["classes"], 1280, scheme)
    script = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    paper = brightness(browser.execute_script(script, "body", "backgroundColor"))
    ink = brightness(browser.execute_script(script, "figure svg text", "fill"))
    assert (paper > 200, ink < 130) == ((True, True) if scheme == "light" else (False, False))


def test_a_page_runs_nothing_and_loads_nothing(built, show):
    browser = show(built["hostile"], 1280, "light")
    assert "taken" not in browser.execute_script("return document.title.replace(arguments[0], '')", HOSTILE[0])
    assert not browser.execute_script("return document.querySelectorAll('script, img, iframe, object, link').length")
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requested = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert len(requested) == 1
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("run", ["finished_run", "points_run"])
def test_the_figures_of_a_runs_report_are_those_of_its_result(run, width, scheme, request, show):
    model_dir = request.getfixturevalue(run)
    result = json.loads((model_dir / "result.json").read_text(encoding="utf-8"))
    browser = show(model_dir / "report.html", width, scheme)
    script = (
        "return Object.fromEntries([...document.querySelectorAll('[data-value]')]"
        ".filter(e => e.checkVisibility()).map(e => [e.dataset.value, (e.querySelector('bdi') ?? e).textContent]))"
    )
    shown = browser.execute_script(script)
    for metric, value in result["test"].items():
        assert shown[f"test.{metric}"] == (f"{value:,}" if isinstance(value, int) else format_number(value))
    described = result["test_classes"]
    for i, (name, values) in enumerate(described.get("by_class", {}).items()):
        assert {m: shown[f"class.{i}.{m}"] for m in ("precision", "recall", "f1")} == {
            m: format_number(values[m]) for m in ("precision", "recall", "f1")
        }
        for j, said in enumerate(described["by_class"]):
            assert shown[f"confusion.{i}.{j}"] == f"{described['confusion'][name].get(said, 0):,}"
    assert shown["steps"] == f"{result['steps']:,}"
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert not overlaps(browser.execute_script(TEXT_BOXES))
