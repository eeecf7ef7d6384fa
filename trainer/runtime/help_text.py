"""The --help of every command: what it does, examples, and its own flags in groups, with their defaults.

Imports nothing heavy.
"""

import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

WIDTH_CHARACTERS = 96
ENDING = "--helpfull also lists the flags of absl, such as --verbosity. README.md and docs/ explain more."


def define_flags() -> None:
    """Define --help, -? and --helpshort in the place of absl's, which print a list without groups."""
    flags.DEFINE_bool("help", False, "Show the flags of this command.", short_name="?", allow_override=True)
    flags.DEFINE_bool("helpshort", False, "The same as --help.", allow_override=True)


def is_requested() -> bool:
    """Whether a flag of define_flags was given. Also known where a later flag is wrong, or a required one missing."""
    return bool(flags.FLAGS["help"].value or flags.FLAGS["helpshort"].value)


def format_help(usage: str, headings: Mapping[str, str]) -> str:
    """`usage`, a docstring with indented examples, and the command's own flags in the order of their definitions.

    `headings`: the name of a flag -> the title of the group that begins with it.
    """
    own_flags = flags.FLAGS.get_key_flags_for_module(sys.argv[0])
    headings = {flag.name: "Flags" for flag in own_flags[:1]} | dict(headings)
    text = "\n\n".join(_wrap_paragraph(paragraph) for paragraph in usage.strip().split("\n\n"))
    for flag in own_flags:
        heading = f"\n\n{headings[flag.name]}:" if flag.name in headings else ""
        text += f"{heading}\n{_format_flag(flag)}"
    return f"{text}\n\n{_wrap(ENDING)}"


def describe_values(sentences: str, default: Any, allowed: Sequence[str] = ()) -> str:
    """`sentences` with the allowed values, where they are few, and the default, unless the sentences tell it."""
    if allowed:
        sentences += f" Allowed values: {', '.join(allowed)}."
    return sentences if "Default: " in sentences else f"{sentences} Default: {_format_value(default)}."


def _format_value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "unset"
    if isinstance(value, float):
        return f"{value:g}"
    return "unset" if value in (None, "") else str(value).lower() if isinstance(value, bool) else str(value)


def _format_flag(flag: flags.Flag) -> str:
    name = f"--{flag.name} / --no{flag.name}" if flag.boolean else f"--{flag.name}=VALUE"
    allowed = getattr(flag.parser, "enum_values", ())
    # absl has put the values of an enum before the sentences, and a line about repetition behind them.
    text = flag.help.removeprefix(f"<{'|'.join(allowed)}>: ").partition(";\n")[0]
    if isinstance(flag.parser, flags.ListParser):
        name += ",..."
    if isinstance(flag, flags.MultiFlag):
        text += " May be given more than once."
    if all(validator.checker(None) for validator in flag.validators):
        text = describe_values(text, flag.default, allowed)
    else:
        text += " Required."
    return f"  {name}\n{_wrap(text, indentation=6)}"


def _wrap_paragraph(paragraph: str) -> str:
    return paragraph if "\n " in f"\n{paragraph}" else _wrap(paragraph)


def _wrap(text: str, indentation: int = 0) -> str:
    # No word is divided: it may be a path or a value to copy.
    lines = textwrap.fill(text, WIDTH_CHARACTERS - indentation, break_long_words=False, break_on_hyphens=False)
    return textwrap.indent(lines, " " * indentation)
