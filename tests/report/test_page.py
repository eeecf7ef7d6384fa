"""Sections as one page: what it may hold, and what a user's text may not do to it."""

import re
from html.parser import HTMLParser

import pytest

from trainer.report import page
from trainer.report.page import Cell, Passage, Piece, Section, Table

HOSTILE = [
    "<script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% for x in y %}",
    "<!-- --><svg/onload=alert(1)>",
    "&lt;script&gt; &amp; &#x27;",
]


class _Elements(HTMLParser):
    """The tags, the attributes and the text of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def everywhere(text: str) -> str:
    """A page with a text wherever a text can be."""
    return page.render(
        text,
        text,
        [
            Section(
                "key",
                "title",
                sentences=[text],
                headline=[(text, Cell(text, note=text))],
                tables=[Table(text, [text, text], [[Cell(text), Cell(text, note=text, shade=0.5)]])],
                passages=[Passage([text], [Piece(text, 0.5), Piece(text)], text)],
                code=[text],
                method=[text],
            )
        ],
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_a_users_text_is_text_wherever_it_is(text):
    elements, plain = _Elements(everywhere(text)), _Elements(everywhere("plain"))
    assert elements.tags == plain.tags
    assert [name for name, _ in elements.attributes] == [name for name, _ in plain.attributes]
    assert elements.text.count(text) == plain.text.count("plain")


@pytest.mark.parametrize(
    "text", ["a" * 100_000, "\u202eright to left", "\u0645\u0631\u062d\u0628\u0627", "\U0001f600" * 50]
)
def test_long_and_foreign_texts_are_shown(text):
    assert page.show_text(text).replace("\ufffd", "") in everywhere(text)


def test_what_a_page_cannot_hold_is_replaced():
    assert page.show_text("a\0b\x1bc\ud800d\u202ee\n\tf") == "a\ufffdb\ufffdc\ufffdd\ufffde\n\tf"
    everywhere("\0\ud800").encode("utf-8")


def test_a_page_needs_nothing_but_itself():
    text = everywhere("plain")
    assert "default-src 'none'" in text
    assert not re.search(r"(src|href)=\"(?!#)|@import|url\((?!#)|<script", text)


def test_figures_have_the_digits_of_the_summary():
    assert page.number(0.869811320754717, "test.accuracy", "note") == Cell("0.8698", "test.accuracy", "note")
    assert page.number(1060).text == "1,060"
    assert page.number(None).text == ""
    assert page.percent(0.8698) == "87.0 %"


def test_a_figure_is_found_by_its_name():
    row = [Cell("name"), page.number(0.5, "test.f1")]
    text = page.render("t", "s", [Section("key", "title", tables=[Table("c", [], [row])])])
    assert 'data-value="test.f1"><bdi>0.5000</bdi>' in text
