"""Sections as one page of HTML: no script, no other file, nothing from the network.

jinja2 escapes every text (autoescape); what is marked as markup is what charts.py has drawn.
"""

import dataclasses
import importlib.resources
import unicodedata
from collections.abc import Sequence

from trainer.data.labels import format_figure


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a table, or a figure of the headline."""

    text: str
    value: str = ""  # The name by which a program finds the figure: "test.accuracy" for result.json's.
    note: str = ""  # Small, below the text, such as an interval.
    shade: float | None = None  # 0 to 1: how strong its background is.


@dataclasses.dataclass(frozen=True)
class Table:
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]  # The first cell of a row names it.


@dataclasses.dataclass(frozen=True)
class Figure:
    svg: str  # Markup of charts.py.
    caption: str


@dataclasses.dataclass(frozen=True)
class Piece:
    """A part of a text, and how much it supported the prediction: -1 to 1, 0 without a mark."""

    text: str
    weight: float = 0.0


@dataclasses.dataclass(frozen=True)
class Passage:
    """A user's text with what is known about it."""

    facts: Sequence[str]
    pieces: Sequence[Piece]
    rest: str = ""  # What is not shown, in words.


@dataclasses.dataclass(frozen=True)
class Section:
    key: str  # Its anchor.
    title: str
    sentences: Sequence[str] = ()  # What the section says about this run; empty ones are left out.
    headline: Sequence[tuple[str, Cell]] = ()  # Large figures with their names.
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    passages: Sequence[Passage] = ()
    code: Sequence[str] = ()
    method: Sequence[str] = ()  # How it was computed, in small letters.


# What HTML cannot hold, or what would turn the letters around it: control characters, and Unicode's overrides of the
# direction. A text's own direction is kept by the page's `dir=auto`.
_KEPT_CONTROLS = "\n\t"
_DIRECTION_OVERRIDES = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_REPLACEMENT = "\ufffd"


def show_text(text: str) -> str:
    """A user's text with a replacement for each character that a page cannot hold."""
    bad = {
        character
        for character in set(text)
        if (unicodedata.category(character) in ("Cc", "Cs") and character not in _KEPT_CONTROLS)
        or character in _DIRECTION_OVERRIDES
    }
    return "".join(_REPLACEMENT if character in bad else character for character in text) if bad else text


def number(value: float | None, name: str = "", note: str = "") -> Cell:
    """A figure with the digits that result.json's figures are printed with. Empty for None."""
    return Cell("") if value is None else Cell(format_figure(value), name, note)


def percent(share: float, digits: int = 1) -> str:
    """0.8698 -> "87.0 %"."""
    return f"{100 * share:.{digits}f} %"


def render(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The page. Texts are plain; figures' svg is markup."""
    import jinja2

    folder = importlib.resources.files("trainer.report")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["show"] = show_text
    template = environment.from_string((folder / "page.html").read_text(encoding="utf-8"))
    style = (folder / "page.css").read_text(encoding="utf-8")
    return template.render(title=title, subtitle=subtitle, sections=sections, style=style)
