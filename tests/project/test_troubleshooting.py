"""docs/troubleshooting.md has an entry for every message to users, and none for one that is gone.

An entry is `SETTING must REQUIREMENT` in the first column of a table, or the line of a warning in the tables of that
section. It may show a part of a long one.
"""

import re
from collections.abc import Iterable

import user_messages
from helpers import ROOT
from user_messages import HOLE, Message

PAGE = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
# What an entry has in the place of what differs from case to case.
PLACEHOLDERS = "FILE FOLDER PATH URL KEY FLAG NAME VARIABLE PACKAGE PROCESS RUN SPLIT N".split()  # noqa: SIM905
PLACEHOLDER = re.compile(rf" ?{HOLE}|\b(?:{'|'.join(PLACEHOLDERS)})\b(?![/(])|(?<=--)(?:SPLIT|KEY|NAME)(?=_|\b)")
# An entry shows at least this many of the fixed characters of a requirement.
MIN_CHARACTERS = 8


def entries(page: str) -> list[str]:
    """The messages in the first column of the page's tables."""
    cells = re.findall(r"^\| (.*?) \| .* \|$", page, re.MULTILINE)
    return [entry for cell in cells for entry in re.findall(r"`(.+? must .*?)`(?=<br>|$)", cell)]


def warning_entries(page: str) -> list[str]:
    (section,) = re.findall(r"^## Warnings.*?(?=^## )", page, re.MULTILINE | re.DOTALL)
    cells = re.findall(r"^\| (`.*?) \| .* \|$", section, re.MULTILINE)
    return [entry for cell in cells for entry in re.findall(r"`(.+?)`(?=<br>|$)", cell)]


def fixed(text: str) -> str:
    return PLACEHOLDER.sub("", text).replace(HOLE, "")


def shows(entry: str, text: str, between: str = ".*") -> bool:
    """Whether an entry's part, a setting or a requirement, is of this text; `between` is what a placeholder may be."""
    return text == entry or bool(re.fullmatch(between.join(map(re.escape, PLACEHOLDER.split(entry))), text, re.DOTALL))


def explains(entry: str, settings: Iterable[str], requirement: str) -> bool:
    setting, required = entry.split(" must ", 1)
    enough = len(fixed(required).strip()) >= min(MIN_CHARACTERS, len(fixed(requirement).strip()))
    of_setting = any(shows(setting, known, f".*{HOLE}.*") for known in settings)
    return enough and of_setting and shows(required, requirement)


def unexplained(messages: Iterable[Message], found: list[str]) -> list[str]:
    """Requirements without an entry, and messages none of whose requirements has one.

    A name of a requirement may be assigned several times in a function, each for another setting: then the entry may be
    with any of these.
    """
    settings: dict[tuple[str, str], set[str]] = {}
    for message in messages:
        for requirement in message.requirements:
            settings.setdefault((message.place.partition(":")[0], requirement), set()).update(message.settings)
    missing = [
        f"{place}: {'/'.join(sorted(known))} must {requirement}"
        for (place, requirement), known in settings.items()
        if not any(explains(entry, known, requirement) for entry in found)
    ]
    return missing + [
        f"{message.place}: {message.settings}"
        for message in messages
        if not any(explains(entry, message.settings, required) for entry in found for required in message.requirements)
    ]


def test_every_message_has_an_entry():
    assert unexplained(user_messages.find_messages(), entries(PAGE)) == []


def test_every_entry_is_of_a_message():
    messages = user_messages.find_messages()
    stale = [
        entry
        for entry in entries(PAGE)
        if not any(explains(entry, each.settings, required) for each in messages for required in each.requirements)
    ]
    assert stale == []
    assert len(entries(PAGE)) == len(set(entries(PAGE)))


def test_a_new_message_is_missed():
    found = ["--first must be small", "KEY must be left out for …"]

    def missed(source: str) -> list[str]:
        return unexplained(list(user_messages.messages_in(source, "new.py")), found)

    assert missed('Problem("--first", "be small", x)') == []
    assert missed('Problem(f"data.{key}", f"be left out for {kind}", x)') == []
    assert len(missed('Problem("--second", "be small", x)')) == 2
    assert len(missed('Problem("--first", "be smaller", x)')) == 2
    assert len(missed('Problem("--first", "be small" if x else "be large", x)')) == 1
    assert len(missed('def f():\n    required = "be large"\n    Problem("--first", required, x)')) == 2


def test_every_warning_has_an_entry_and_every_entry_a_warning():
    lines = [(place, text) for place, text in user_messages.find_lines() if len(fixed(text)) >= MIN_CHARACTERS]
    found = warning_entries(PAGE)
    assert [line for line in lines if not any(shows(entry, line[1]) for entry in found)] == []
    assert [entry for entry in found if not any(shows(entry, text) for _, text in lines)] == []
    assert [entry for entry in found if len(fixed(entry)) < MIN_CHARACTERS] == []
