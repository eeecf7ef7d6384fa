import html.parser

import pytest

from trainer.comparison import page
from trainer.comparison.comparing import Comparison, Example, Pair
from trainer.comparison.paired import Difference, McNemar

HOSTILE = "<script>alert(1)</script>\"'&"


@pytest.fixture
def shown():
    """A page in which every text of a user's is markup."""
    pair = Pair(HOSTILE, [Difference("macro_f1", 0.0125, -0.01, 0.035)], McNemar(3, 9, 0.146))
    example = Example(HOSTILE, HOSTILE, HOSTILE, [HOSTILE, HOSTILE], [True, False])
    settings, figures = {HOSTILE: [HOSTILE, None]}, {"test accuracy": ["0.5000", "0.5125"]}
    return page.render_page(Comparison([HOSTILE, HOSTILE], 1060, 2000, settings, figures, [pair], [example]))


def test_every_text_is_escaped_and_nothing_is_loaded(shown):
    tags = []
    parser = html.parser.HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append((tag, dict(attributes)))
    parser.feed(shown)
    names = {tag for tag, _ in tags}
    assert not names & {"script", "img", "link", "iframe", "object"}
    assert not [value for _, attributes in tags for name, value in attributes.items() if name in ("src", "href")]
    assert "http://" not in shown.replace("http-equiv", "")
    assert "https://" not in shown
    assert "&lt;script&gt;" in shown


def test_the_page_has_the_figures(shown):
    for figure in ("+0.0125", "-0.0100 to +0.0350", "0.5125", "1,060", "2,000", "p = 0.146", "macro f1"):
        assert figure in shown


def test_it_has_a_dark_form(shown):
    assert "prefers-color-scheme: dark" in shown


@pytest.mark.parametrize(("low", "high"), [(-0.01, 0.035), (0.01, 0.02), (-0.3, -0.1), (0.0, 0.0)])
def test_an_interval_lies_in_its_drawing_with_no_difference(low, high):
    placed = page._place(Difference("accuracy", (low + high) / 2, low, high))
    assert all(page.MARGIN <= x <= page.WIDTH - page.MARGIN for x in placed.values())
    assert placed["low"] <= placed["value"] <= placed["high"]
    assert (placed["zero"] < placed["low"]) == (low > 0)
