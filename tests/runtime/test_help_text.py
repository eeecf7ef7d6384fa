"""--help of every command, each in a process of its own."""

import ast
import functools
import re
import subprocess

import pytest
from helpers import ROOT, outcome, python

from trainer.config import flags as config_flags
from trainer.config import schema
from trainer.runtime import help_text

SCRIPTS = [f"scripts/{path.name}" for path in sorted((ROOT / "scripts").glob("*.py"))]
COMMANDS = ["trainer/task.py", *SCRIPTS]
SETTINGS = ["Several settings at once", *config_flags.SECTION_TITLES.values()]
FLAG = re.compile(r"^  --(\S+?)(?:=VALUE(?:,\.\.\.)?| / --no(\S+))\n((?: {6}.*\n)+)", re.MULTILINE)


def run(command: str, *arguments: str) -> subprocess.CompletedProcess:
    start = ["-m", "trainer.task"] if command == "trainer/task.py" else [command]
    return python("-X", "importtime", *start, *arguments)


@functools.cache
def read_help(command: str) -> subprocess.CompletedProcess:
    return run(command, "--help")


def defined_flags(command: str) -> list[str]:
    """The flags that the source of a command defines or declares, in any order."""
    source = (ROOT / command).read_text(encoding="utf-8")
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    names = [ast.literal_eval(node.args[0]) for node in calls if "flags.DEFINE_" in ast.unparse(node.func)]
    if "adopt_module_key_flags" in source:
        names += ["config", "set", *schema.KEYS]
    return names + (["data_dir", *schema.URL_KEYS] if "declare_key_flag" in source else [])


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_plain_text_that_fits_a_terminal(command):
    done = read_help(command)
    assert done.returncode == 0
    assert done.stdout.isascii()
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert str(ROOT) not in done.stdout
    assert done.stdout.endswith(help_text.ENDING + "\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command):
    imported = {line.rpartition("|")[2].strip() for line in read_help(command).stderr.splitlines()}
    assert "absl.flags" in imported
    assert not imported & {"tensorflow", "scipy", "sklearn", "pandas", "matplotlib"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_is_there_once_in_sentences_with_its_default(command):
    found = FLAG.findall(read_help(command).stdout)
    assert sorted(name for name, _, _ in found) == sorted(defined_flags(command))
    for name, negated, lines in found:
        text = " ".join(lines.split())
        assert negated in ("", name)
        assert re.fullmatch(r"[A-Z].*\.", text), name
        assert text.count("Default: ") + text.count("Required.") == 1, name


@pytest.mark.parametrize(
    ("command", "titles"),
    [
        (
            "trainer/task.py",
            [
                *("The run", "Devices", "With --mode=train", "With --mode=evaluate", "With --mode=report"),
                *("With --mode=inspect_batches", *SETTINGS),
            ],
        ),
        ("scripts/compare.py", ["Flags"]),
        ("scripts/export_encoder.py", ["Flags", "Files of the run that have been moved"]),
        ("scripts/predict.py", ["Input", "Output"]),
        ("scripts/sweep.py", ["The sweep", *SETTINGS]),
    ],
)
def test_flags_are_in_groups_and_settings_in_those_of_the_schema(command, titles):
    assert re.findall(r"^(\S.*):\n  --", read_help(command).stdout, re.MULTILINE) == titles


@pytest.mark.parametrize("argument", ["--helpshort", "-?", "--help=true"])
def test_another_form_shows_the_same(argument):
    done = run("scripts/compare.py", argument, "--resamples=wrong")
    assert (done.returncode, done.stdout) == (0, read_help("scripts/compare.py").stdout)


@pytest.mark.parametrize(("argument", "code"), [("--helpfull", 0), ("--help=perhaps", 2), ("--nohelp", 2)])
def test_what_is_no_request_for_this_help_is_left_to_absl(argument, code):
    done = run("scripts/compare.py", argument)
    assert done.returncode == code
    assert help_text.ENDING not in done.stdout
    assert ("--verbosity" in done.stdout) == (argument == "--helpfull")


@pytest.mark.parametrize(
    ("default", "shown"),
    [
        (None, "unset"),
        ("", "unset"),
        ([], "unset"),
        (240.0, "240"),
        (1e-4, "0.0001"),
        (262144, "262144"),
        (False, "false"),
        (0, "0"),
        (["a", "b"], "a, b"),
    ],
)
def test_a_default_is_told_in_one_style(default, shown):
    assert help_text.describe_values("The value.", default) == f"The value. Default: {shown}."


def test_allowed_values_are_told_and_a_default_only_once():
    assert help_text.describe_values("One.", "a", ["a", "b"]) == "One. Allowed values: a, b. Default: a."
    assert help_text.describe_values("One. Default: that of two.", None) == "One. Default: that of two."


CODE = """
from absl import flags
from trainer.runtime import app

flags.DEFINE_enum("animal", "sheep", ["sheep", "goats"], "The animal to count.")
flags.DEFINE_multi_string("name", None, "A name.", required=True)
flags.DEFINE_list("fields", ["north", "south"], "The fields to look at.")
app.run(print, "Count animals.\\n\\nExamples:\\n  count  --name=Dolly", {"fields": "Where"})
"""
EXPECTED = """\
Count animals.

Examples:
  count  --name=Dolly

Flags:
  --animal=VALUE
      The animal to count. Allowed values: sheep, goats. Default: sheep.
  --name=VALUE
      A name. May be given more than once. Required.

Where:
  --fields=VALUE,...
      The fields to look at. Default: north, south.

"""


def test_the_page_has_usage_groups_and_flags_in_their_order():
    assert outcome(CODE, "--help") == (0, f"{EXPECTED}{help_text.ENDING}\n", "")
