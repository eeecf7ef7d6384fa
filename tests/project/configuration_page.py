"""docs/configuration.md, made from trainer/config/schema.py.

python tests/project/configuration_page.py > docs/configuration.md
"""

import dataclasses
import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic.fields import FieldInfo

from trainer.config import flags, schema

INTRODUCTION = """\
# Settings
Made from `trainer/config/schema.py` by `tests/project/configuration_page.py`; a test compares the two.

From the weakest to the strongest, a setting's value is the default below, the preset of `--config`, or a flag. Each
key is a flag: `--data.seq_length=256` is the same as `--set data.seq_length=256`. `none` unsets a setting that may be
unset. An unknown key is refused with the nearest known one, and all errors are reported at once, with exit code 2.
The resolved configuration of a run is in its model_dir, as `config.yaml`. `configs/` has presets, each with its
command and result.

A run can be resumed only with the same values, except for those marked *. Of `encoder`, `preprocess` and `data_dir`
the content must be the same. `init_from` is read when a run starts, and may be left out later.
"""
TYPE_NAMES = {
    int: "integer",
    float: "number",
    bool: "true or false",
    str: "text",
    dict[str, float]: "numbers by name",
    type(None): "unset",
}
BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def describe_type(hint: Any) -> str:
    """`Annotated[int, Field(gt=0)] | None` -> "integer above 0, or unset"."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Annotated:
        constraints = [c for info in arguments[1:] if isinstance(info, FieldInfo) for c in info.metadata]
        bounds = [
            f"{words} {getattr(constraint, name):,}"
            for constraint in constraints
            for name, words in BOUNDS.items()
            if hasattr(constraint, name)
        ]
        return " ".join([describe_type(arguments[0]), " and ".join(bounds)]).strip()
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return ", or ".join(describe_type(argument) for argument in arguments)
    return TYPE_NAMES[hint]


def describe_default(value: Any) -> str:
    if value is None or value == "":
        return "unset" if value is None else "empty"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def section_rows(section: type, prefix: str) -> Iterator[str]:
    """A row of the table for each key of the section that is no section itself."""
    for name, hint in typing.get_type_hints(section, include_extras=True).items():
        if dataclasses.is_dataclass(hint):
            continue
        key = f"{prefix}{name}"
        mark = " *" if key.startswith(schema.NOT_FINGERPRINTED) else ""
        default, description = describe_default(schema.DEFAULTS[key]), schema.DESCRIPTIONS[key]
        yield f"| `{key}`{mark} | {describe_type(hint)} | {default} | {description} |"


def write_page() -> str:
    """The page as Markdown."""
    sections = {"": schema.Config} | {
        name: hint
        for name, hint in typing.get_type_hints(schema.Config, include_extras=True).items()
        if dataclasses.is_dataclass(hint)
    }
    page = [INTRODUCTION]
    for name, section in sections.items():
        rows = section_rows(section, f"{name}." if name else "")
        page += [f"## {flags.SECTION_TITLES[name]}\n| key | type | default | |\n| --- | --- | --- | --- |", *rows, ""]
    return "\n".join(page).rstrip("\n") + "\n"


if __name__ == "__main__":
    print(write_page(), end="")
