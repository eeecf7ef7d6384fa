"""Several labels a text, or none: a list, a cell with a delimiter, or a column of 0 and 1 for each label.

The labels of a text are a set: repeated ones count once. A set is a sorted tuple of names.
"""

import ast
import contextlib
import csv
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from trainer.data import labels
from trainer.data.labels import UnusableValue
from trainer.errors import Problem

# What may stand between the labels of a cell. The first that is in any cell of the column is the column's.
DELIMITERS = ("|", ";", ",")
_YES_NO = {"1": True, "0": False, "1.0": True, "0.0": False, "true": True, "false": False}
# An array as NumPy writes it: Python would join such strings to one.
_WITHOUT_COMMA = re.compile(r"""['"]\s+['"]""")

LabelSet = tuple[str, ...]


def find_flag_problems(
    multi_label: bool, label_type: str, label_column: str | None, delimiter: str | None, columns: Sequence[str]
) -> list[Problem]:
    """What is wrong among the flags of labels. A flag that is not given is None, or an empty list of columns."""
    of_several = (("--label_delimiter", delimiter), ("--label_columns", ",".join(columns) or None))
    if not multi_label:
        return [
            Problem(flag, "be left out unless --multi_label is given", value)
            for flag, value in of_several
            if value is not None
        ]
    problems = []
    if label_type != "auto":
        problems.append(Problem("--label_type", "be left out with --multi_label", label_type))
    if delimiter == "":
        problems.append(Problem("--label_delimiter", "be one character or several", repr(delimiter)))
    if columns:
        for flag, value in (("--label_column", label_column), ("--label_delimiter", delimiter)):
            if value is not None:
                problems.append(Problem(flag, "be left out with --label_columns", value))
    if wrong := sorted({name for name in columns if columns.count(name) > 1 or not name}):
        problems.append(Problem("--label_columns", "have every name once", ", ".join(map(repr, wrong))))
    return problems


def find_delimiter(cells: Iterable[str]) -> str | None:
    """The delimiter of a column of cells: the first of DELIMITERS that is in any of them. None if there is none."""
    found = {delimiter for cell in set(cells) for delimiter in DELIMITERS if delimiter in cell}
    return next((delimiter for delimiter in DELIMITERS if delimiter in found), None)


def read_labels(
    record: Mapping[str, object], column: str, columns: Sequence[str], missing: Collection[str]
) -> tuple[str, LabelSet | None]:
    """The labels of a record: (a cell still to be divided, None), or (what is written as a set of it, or "", the set).

    They are those of `columns` (one of 0 and 1 for each label), or else of `column`: a list, one that is written as a
    string (also as a set, a tuple, or an array of PostgreSQL's), or a cell. Null is a text without labels. `missing`
    are the names, in lower case, of a label that is missing. Raises UnusableValue.
    """
    if columns:
        return "", tuple(sorted(name for name in columns if _read_yes_or_no(record[name], name)))
    value = record[column]
    written = ""
    if isinstance(value, str):
        written = "" if value.lstrip().startswith("[") else value.strip()
        value = _parse_cell(value.strip(), column)
    if not isinstance(value, list):
        return _to_name(value, column), None
    return written, _to_label_set((_to_name(item, column) for item in value), column, missing)


def _read_yes_or_no(value: object, name: str) -> bool:
    text = str(value).strip().casefold()
    if text not in _YES_NO:
        raise UnusableValue(f"{value!r} in {name!r}, which is neither 0 nor 1")
    return _YES_NO[text]


def _parse_list(cell: str, column: str) -> list[object]:
    """A list as JSON or as Python writes it, which is how pandas writes one into a CSV."""
    values = _parse_literal(cell)
    if isinstance(values, list):
        return values
    raise UnusableValue(f"{cell[:40]!r} in {column!r}, which begins like a list and is none")


def _parse_literal(cell: str) -> object:
    """The value that a cell is as JSON or as Python writes it; None if it is none."""
    for parse in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            value = parse(cell)
            if parse is json.loads or not _WITHOUT_COMMA.search(cell):
                return value
    return None


def _parse_cell(cell: str, column: str) -> str | list[object]:
    """The labels of a cell that is written as several in brackets; any other cell as it is."""
    if cell.startswith("["):
        return _parse_list(cell, column)
    if cell == "set()":
        return []
    if (cell[:1], cell[-1:]) not in (("{", "}"), ("(", ")")):
        return cell
    value = _parse_literal(cell)
    if isinstance(value, dict) and value:
        raise UnusableValue(f"an object as label in {column!r}")
    if isinstance(value, set | tuple | dict):
        return list(value)
    inner = cell[1:-1]
    if cell[0] == "(" or "{" in inner or "}" in inner:
        return cell  # A label in parentheses, or several in braces of their own.
    try:  # PostgreSQL's {a,b}.
        return list(next(csv.reader([inner], skipinitialspace=True, escapechar="\\", doublequote=False), []))
    except csv.Error:
        return cell


def _to_name(value: object, column: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, str | int | float):
        return "" if value is None else str(value).strip()
    raise UnusableValue(f"{type(value).__name__} as a label in {column!r}")


def _to_label_set(names: Iterable[str], column: str, missing: Collection[str]) -> LabelSet:
    """Names as a set. Raises UnusableValue for a name that is empty, or is one of `missing`."""
    found = sorted(set(names))
    for name in found:
        if not name:
            raise UnusableValue(f"an empty label among those in {column!r}")
        labels.refuse_missing(name, column, missing)
    return tuple(found)


def _split_cell(cell: str, delimiter: str | None, column: str, missing: Collection[str]) -> LabelSet:
    """The labels of a cell. Empty parts, as after a last delimiter, are none. Raises UnusableValue."""
    parts = cell.split(delimiter) if delimiter else [cell]
    return _to_label_set((part.strip() for part in parts if part.strip()), column, missing)


def divide_cells(
    read: Sequence[tuple[str, LabelSet | None]],
    tables: Sequence[int],
    delimiter: str | None,
    column: str,
    missing: Collection[str],
) -> tuple[list[LabelSet | UnusableValue], str]:
    """(the set of each row, or why it has none; how the labels were read, for people).

    `read` is what read_labels returned for each row, `tables` the number of its table. Without a `delimiter` cells are
    divided at find_delimiter's, except in a table with lists: there a cell is one label. Braces and parentheses make no
    such table: they may be part of a name.
    """
    with_lists = {table for table, (cell, names) in zip(tables, read, strict=True) if names is not None and not cell}
    whole = [delimiter is None and table in with_lists for table in tables]
    cells = {cell for (cell, names), one in zip(read, whole, strict=True) if names is None and not one}
    between = delimiter or find_delimiter(cells)
    sets: list[LabelSet | UnusableValue] = []
    known: dict[tuple[str, bool], LabelSet] = {}  # Many cells are equal.
    for (cell, names), one in zip(read, whole, strict=True):
        try:
            if names is None and (cell, one) not in known:
                known[cell, one] = _split_cell(cell, None if one else between, column, missing)
            sets.append(known[cell, one] if names is None else names)
        except UnusableValue as error:
            sets.append(error)
    return sets, _describe_form(bool(with_lists), between, delimiter is not None)


def join_labels(names: Sequence[str], known: Iterable[str]) -> str:
    """Labels as a cell that can be read again. `known` are all labels: with a delimiter in any, it is a JSON list."""
    if find_delimiter(known) or any(name.startswith(("[", "{", "(")) for name in known):
        return json.dumps(list(names), ensure_ascii=False)
    return DELIMITERS[0].join(names)


def name_equal_numbers(sets: Sequence[LabelSet]) -> tuple[list[LabelSet], dict[str, str]]:
    """(the sets with equal numbers of one name, those names by what they replace): 1.0 is 1, if that comes first."""
    names = labels.name_equal_numbers(name for names in dict.fromkeys(sets) for name in names)
    renamed = {label: name for label, name in names.items() if label != name}
    if not renamed:
        return list(sets), {}
    replaced = {old: tuple(sorted({names[name] for name in old})) for old in dict.fromkeys(sets)}
    return [replaced[old] for old in sets], renamed


def _describe_form(lists: bool, delimiter: str | None, given: bool) -> str:
    """How labels were read: as `lists`, with a `delimiter` that was `given` by the flag or found."""
    if delimiter:
        between = f"separated by {delimiter!r}" + ("" if given else "; --label_delimiter names another")
        return f"lists, and cells {between}" if lists else between
    return "lists" if lists else "one a cell at most; --label_delimiter names what separates several"


def describe_decision(sets: Sequence[LabelSet], form: str) -> str:
    """One line for people: how many labels in how many rows, and how they were read."""
    different = len({name for names in sets for name in names})
    several, none = sum(len(names) > 1 for names in sets), sum(not names for names in sets)
    how = f" ({form})" if form else ""
    return f"{different:,} labels in {len(sets):,} rows, {several:,} with several and {none:,} with none{how}"
