import html.parser
import re

import pytest

from trainer.comparison import page
from trainer.comparison.comparing import Comparison, Example, Pair
from trainer.comparison.paired import Difference, McNemar

HOSTILE = "<script>alert(1)</script>\"'&\u202e"


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
    assert "blockquote" in names
    assert not names & {"script", "img", "link", "iframe", "object"}
    loaded = [value for _, attributes in tags for name, value in attributes.items() if name in ("src", "href")]
    assert all(value.startswith("#") for value in loaded)
    assert "&lt;script&gt;" in shown
    assert "\u202e" not in shown  # It would turn the letters after it around.


def test_the_page_has_the_figures(shown):
    for figure in ("+0.0125", "-0.0100 to +0.0350", "0.5125", "1,060", "2,000", "p = 0.146", "macro f1"):
        assert figure in shown


def test_it_has_a_dark_form(shown):
    assert "prefers-color-scheme: dark" in shown


def test_each_difference_is_drawn(shown):
    (drawing,) = re.findall(r"<svg .*?</svg>", shown, re.DOTALL)
    assert 'aria-label="macro f1"' in drawing
    assert "var(--accent)" in drawing
