"""Charts for the page."""

import re
import xml.etree.ElementTree

import numpy as np

from trainer.report import charts


def drawn(name="a", title="Title"):
    def plot(axes):
        axes.plot([0, 1], [0, 1], color=charts.ACCENT, label="$x$ <b> & \u5b57")
        axes.legend()

    return charts.draw(name, title, plot)


def test_a_chart_has_the_pages_colors():
    svg = drawn()
    assert {"--ink", "--muted", "--line", "--accent"} <= set(re.findall(r"--\w+", svg))
    assert "#0a0b" not in svg


def test_a_charts_texts_stay_texts_and_are_escaped():
    svg = drawn(title="a < b & $c$")
    xml.etree.ElementTree.fromstring(svg)
    assert "$x$ &lt;b&gt; &amp; \u5b57" in svg
    assert "a &lt; b &amp; $c$" in svg


def test_the_ids_of_two_charts_differ():
    ids = [set(re.findall(r'\bid="([^"]*)"', drawn(name))) for name in ("a", "b")]
    assert ids[0]
    assert not ids[0] & ids[1]
    used = set(re.findall(r"url\(#([^)]*)\)|href=\"#([^\"]*)\"", drawn("a")))
    assert {name for pair in used for name in pair if name} <= ids[0]


def test_the_same_chart_is_the_same_text():
    assert drawn() == drawn()


def test_a_long_curve_keeps_its_ends():
    x, y = charts.thin(np.arange(5000), np.arange(5000) ** 2)
    assert len(x) == charts.MAX_POINTS
    assert (x[0], x[-1], y[-1]) == (0, 4999, 4999**2)
    assert len(charts.thin([1, 2, 3])[0]) == 3
