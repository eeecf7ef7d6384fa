"""docs/extending.md and encoder_families.md: their changes are made in a copy of the code, and it prints what they say.

A block's first line names the file. One of `diff` replaces a place of that file, which has to be there once; one of
`python` is a new file. `check` is run after all changes of its section, and prints `printed`.
"""

import re
import shutil
import subprocess
import sys

import pytest
from helpers import ROOT, python

PAGES = [(ROOT / f"docs/{name}.md").read_text(encoding="utf-8") for name in ("extending", "encoder_families")]
_PARTS = re.split(r"^## (.*)\n", "".join(PAGES), flags=re.MULTILINE)
SECTIONS = {name: text for name, text in zip(_PARTS[1::2], _PARTS[2::2], strict=True) if "```python check" in text}
BLOCK = re.compile(r"^```(\w+) (\S+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def changed(text: str, diff: str) -> str:
    """The text with the lines of a diff that has no line numbers: its place has to be there once."""
    lines = [(line[:1] or " ", line[1:]) for line in diff.splitlines()]
    before = "".join(f"{line}\n" for mark, line in lines if mark in " -")
    after = "".join(f"{line}\n" for mark, line in lines if mark in " +")
    assert text.count(before) == 1, f"not once in the file:\n{before}"
    return text.replace(before, after)


@pytest.fixture
def code(tmp_path):
    """A copy of the code."""
    shutil.copytree(ROOT / "trainer", tmp_path / "trainer", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.parametrize("section", SECTIONS)
def test_a_change_of_the_page_does_what_it_says(code, section):
    blocks = BLOCK.findall(SECTIONS[section])
    (check,) = (block for _, name, block in blocks if name == "check")
    (printed,) = (block for _, name, block in blocks if name == "printed")
    for kind, name, block in blocks:
        if kind == "diff":
            path = code / name
            path.write_text(changed(path.read_text(encoding="utf-8"), block), encoding="utf-8")
        elif name not in ("check", "printed"):
            assert not (code / name).exists()
            (code / name).write_text(block, encoding="utf-8")
    done = python("-c", check, cwd=code, check=True)
    assert done.stdout == printed
    command = [sys.executable, "-m", "ruff"]
    options = ["--no-cache", f"--config={ROOT / 'pyproject.toml'}", "."]
    subprocess.run([*command, "check", *options], cwd=code, check=True)
    subprocess.run([*command, "format", "--check", *options], cwd=code, check=True)


def test_a_change_whose_place_is_gone_is_noticed():
    with pytest.raises(AssertionError, match="not once"):
        changed("a\nb\n", " a\n-c\n+d\n")
    assert changed("a\nb\n", " a\n-b\n+d\n+e\n") == "a\nd\ne\n"


def test_every_kind_of_extension_has_its_section():
    assert list(SECTIONS) == ["A data set", "A metric", "A storage scheme", "A strategy", "The native path"]
