"""Rows of texts and labels from tables, and from folders with a folder for each class.

Everything is read as a stream. Rows that cannot be used come with the reason.
"""

import dataclasses
import json
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from trainer.data import label_sets, labels, tables
from trainer.data.labels import UnusableValue
from trainer.errors import Problem, UserError

MAX_REPORTED_ROWS = 5
MAX_WEIGHT = 1e6  # Of an example. The sums of a batch's weights and losses are float32.


class Texts(NamedTuple):
    """What of a row may be long."""

    text: str
    text_b: str | None  # The second text of a pair.
    kept: tuple[str, ...]  # The values of the columns that are kept for a report.


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One row of a source. Its id is unique within its split."""

    id: int | str  # Its number from 0, or its file's path.
    text: str
    text_b: str | None
    label: str  # As it was read: a class's name, a number, or a cell of several labels that is not divided yet.
    split: str  # "train", "validation", "test", or "" if the source has no splits.
    labels: tuple[str, ...] | None = None  # Where a text has several labels: those of the row, sorted.
    weight: float | None = None  # None if the source has no weights.
    kept: tuple[str, ...] = ()

    def texts(self) -> Texts:
        return Texts(self.text, self.text_b, self.kept)

    @property
    def label_names(self) -> tuple[str, ...]:
        """One, unless a text may have several."""
        return (self.label,) if self.labels is None else self.labels


def find_bad_row_problems(source: str, bad_rows: Sequence[str]) -> list[Problem]:
    """One problem with the number of bad rows and the first of them, "place: reason" each; none if there are none."""
    if not bad_rows:
        return []
    count = "1 row that does not" if len(bad_rows) == 1 else f"{len(bad_rows):,} rows that do not"
    shown = "; ".join(bad_rows[:MAX_REPORTED_ROWS]) + ("; ..." if len(bad_rows) > MAX_REPORTED_ROWS else "")
    return [
        Problem(
            f"Every row of {source}",
            "have the columns of its header, a text and a label",
            f"{count}: {shown}",
            "Correct them, or leave them out with --bad_rows=skip.",
        )
    ]


# --- Tables ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ColumnNames:
    """The columns of a table that are read: of a text, of the second text of pairs or None, of a label, and others."""

    text: str
    text_pair: str | None
    label: str
    labels: tuple[str, ...] = ()  # In the place of `label`: a column of 0 and 1 for each of several labels.
    weight: str | None = None
    kept: tuple[str, ...] = ()

    def used(self) -> list[str]:
        """The names without None, each once."""
        names = (self.text, self.text_pair, *(self.labels or (self.label,)), self.weight, *self.kept)
        return list(dict.fromkeys(name for name in names if name is not None))


DEFAULT_COLUMNS = ColumnNames("text", None, "label")


def read_table(
    source: str,
    columns: ColumnNames,
    split: str = "",
    *,
    table_format: tables.TableFormat = tables.DEFAULT_FORMAT,
    missing_labels: Sequence[str] = labels.MISSING_LABELS,
    allow_empty_pairs: bool = False,
    several_labels: bool = False,
    first_id: int = 0,
) -> Iterator[tuple[int, Row | str]]:
    """(the line or row that a record begins in, its row in `split` or why it cannot be used) for each record.

    A row's id is the number of its record, from `first_id`. A label that is one of `missing_labels`, upper case or not,
    is none; an empty second text is refused unless `allow_empty_pairs`. With `several_labels` a row has `labels`, or a
    cell of them as its label. Raises what tables.read_records does, and UserError for a table without rows.
    """
    missing = {label.casefold() for label in missing_labels}
    number, used = None, columns.used()
    for id_, (number, record) in enumerate(tables.read_records(source, table_format, used), first_id):
        if isinstance(record, str):
            yield number, record
            continue
        try:
            if all(str(record[name]).lstrip("\ufeff") == name for name in used):
                raise UnusableValue("the header once more, as of a table that was added to another one")
            text, text_b = _text_of(record, columns.text), None
            if columns.text_pair:
                text_b = _text_of(record, columns.text_pair, second=True, allow_empty=allow_empty_pairs)
            if several_labels:
                label, label_set = label_sets.read_labels(record, columns.label, columns.labels, missing)
            else:
                label, label_set = _label_of(record, columns.label, missing), None
            weight = _weight_of(record, columns.weight) if columns.weight else None
            kept = tuple(_kept_value(record[name]) for name in columns.kept)
        except UnusableValue as error:
            yield number, str(error)
        else:
            yield number, Row(id_, text, text_b, sys.intern(label), split, label_set, weight, kept)
    if number is None:
        raise UserError(Problem(source, "hold rows", "none"))


# A list, a tuple, a set or an object as pandas writes it into a CSV.
_WRITTEN_LIST = re.compile(r"""\[\]|\{\}|\[['"\d].*\]|\{['"\d].*\}|\(['"].*['"],?\)""", re.DOTALL)
_WRITTEN = {"[": "a list", "(": "a tuple", "{": "a set"}
_WRITTEN_OBJECT = re.compile(r"""\{\s*(['"].*?['"]|[\d.]+)\s*:.*\}""", re.DOTALL)


def _no_text(what: str, kind: str, name: str) -> UnusableValue:
    several = ""
    if kind == "label" and what not in ("an object", "bytes"):
        several = " (--multi_label if a text may have several labels)"
    return UnusableValue(f"{what} as {kind} in {name!r}{several}")


def _as_string(value: object, kind: str, name: str) -> str:
    """A text or number as a string, "" for null."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"  # As JSON writes it.
    if isinstance(value, dict):
        raise _no_text("an object", kind, name)
    if isinstance(value, list | bytes):
        raise _no_text("a list" if isinstance(value, list) else "bytes", kind, name)
    return str(value)


def _text_of(record: Mapping[str, object], name: str, *, second: bool = False, allow_empty: bool = False) -> str:
    text = _as_string(record[name], "text", name)
    if text.strip() not in ("", *tables.MISSING_TEXTS):
        return text
    if not allow_empty:
        raise UnusableValue(f"an empty text in {name!r}" + (" (--allow_empty_pairs if it may be)" if second else ""))
    return ""


def _label_of(record: Mapping[str, object], name: str, missing: Collection[str]) -> str:
    label = _as_string(record[name], "label", name).strip()
    if not label:
        raise UnusableValue(f"an empty label in {name!r}")
    labels.refuse_missing(label, name, missing)
    if _WRITTEN_LIST.fullmatch(label):
        what = "an object" if _WRITTEN_OBJECT.fullmatch(label) else _WRITTEN[label[0]]
        raise _no_text(what, "label", name)
    return label


def _weight_of(record: Mapping[str, object], name: str) -> float:
    value = _as_string(record[name], "weight", name).strip()
    # As float32, which it is stored as, a larger number would be infinite.
    if not labels.is_number(value) or not 0 <= float(value) <= MAX_WEIGHT:
        raise UnusableValue(f"no weight in {name!r}, which is a number from 0 to {MAX_WEIGHT:g}, but {value!r}")
    return float(value)


def _kept_value(value: object) -> str:
    """A value of any type as a string that may be one of few in a table of a report."""
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value, default=str)
    return sys.intern(text)


# --- A folder for each class ----------------------------------------------------------------------

# The folders above those of the classes, where there are any.
SPLIT_FOLDERS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    "test": "test",
}


def read_class_folders(source: str, split: str = "", *, encoding: str | None = None) -> Iterator[tuple[str, Row | str]]:
    """(path, its row or why it cannot be used) of every file in a folder that has a folder for each class.

    With a folder train/ in it, classes are in train/, validation/ (or dev/, valid/) and test/, which are the rows'
    splits; without, rows are in `split`. The path of a file in `source` is its row's id. Hidden files are left out.
    Raises UserError if there are no files in folders, or other folders beside train/.
    """
    root = Path(source)
    names = {path.name: SPLIT_FOLDERS.get(path.name.lower()) for path in _visible_folders(root)}
    has_splits = "train" in names.values()
    if has_splits and split:
        required = "name a folder with a folder for each class"
        received = f"{source}, which has train/ in it"
        raise UserError(Problem(f"--{split}_source", required, received, "Name the folder of one split in it."))
    others = [name for name, known in names.items() if not known]
    if others if has_splits else names and not others:
        required = "have train/, validation/ and test/ in it, or a folder for each class"
        received = f"train/ and also {', '.join(others[:5])}" if has_splits else f"{' and '.join(sorted(names))} alone"
        raise UserError(Problem(source, required, received))
    files = 0
    for name in sorted(names):
        for class_folder in _visible_folders(root / name) if has_splits else [root / name]:
            row_split = (names[name] or "") if has_splits else split
            for path in sorted(class_folder.rglob("*")):
                relative = path.relative_to(root)
                if not path.is_file() or any(part.startswith(".") for part in relative.parts):
                    continue
                files += 1
                yield relative.as_posix(), _file_row(path, relative.as_posix(), class_folder.name, row_split, encoding)
    if not files:
        required = "be a file, or a folder with a folder of text files for each class"
        advice = "Name several tables by a pattern in quotes, 'FOLDER/*.csv'."
        raise UserError(Problem("The source", required, f"{source}, a folder without", advice))


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _file_row(path: Path, id_: str, label: str, split: str, encoding: str | None) -> Row | str:
    try:
        text = tables.decode(path.read_bytes(), encoding)
    except UnicodeError:
        return "bytes that are not of the encoding (--encoding=cp1252, or utf-16-le?)"
    return Row(id_, text, None, sys.intern(label), split) if text.strip() else "an empty text"
