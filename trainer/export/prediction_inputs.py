"""The texts to score: arguments, lines, a table's records or a program's list. They are numbered, none is left out.

A file is read twice: once to count its texts and to find those that cannot be scored, once to score them.
"""

import dataclasses
import gzip
import io
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from trainer.data import tables
from trainer.data.tables import NumberedRecord, TableFormat
from trainer.errors import Problem, UserError

MAX_REPORTED = 5


@dataclasses.dataclass(frozen=True)
class InputSource:
    """Where the texts come from."""

    name: str  # As messages name it.
    unit: str  # What is numbered, such as "line".
    text_columns: tuple[str, ...]  # The one or two columns of a record that are scored.
    read: Callable[[], Iterator[NumberedRecord]]
    rereadable: bool  # Whether `read` can be called again.
    no_texts: tuple[str, ...] = ()  # The values that stand for a missing text.


@dataclasses.dataclass(frozen=True)
class InputSummary:
    """What `inspect_source` finds."""

    rows: int | None  # None if the source cannot be read twice.
    # bool, int, float or str for each column's values, None aside. The columns are in the order in which they occur.
    types: dict[str, frozenset[type]]


def argument_source(texts: Sequence[str], text_columns: tuple[str, ...]) -> InputSource:
    """The arguments of the command. A tab separates the two texts of a pair."""

    def read() -> Iterator[NumberedRecord]:
        return ((number, _split_line(text, text_columns)) for number, text in enumerate(texts, 1))

    return InputSource("the command", "argument", text_columns, read, rereadable=True)


def list_source(texts: Sequence[Any], text_columns: tuple[str, ...]) -> InputSource:
    """The texts of a program, each a string or, for a model of pairs, a list or tuple of two.

    Raises UserError if they are one string, whose characters would be texts.
    """
    if isinstance(texts, str):
        raise UserError(Problem("texts", "be a list of texts", repr(texts[:40]), "Put a single text in brackets."))

    def read() -> Iterator[NumberedRecord]:
        return ((number, _split_value(text, text_columns)) for number, text in enumerate(texts, 1))

    return InputSource("the list", "text", text_columns, read, rereadable=True)


def line_source(path: str, text_columns: tuple[str, ...], encoding: str | None) -> InputSource:
    r"""The lines of a local file, unpacked if its name ends in .gz, or of standard input for "-".

    Only \n and \r\n end a line. `encoding` None is UTF-8, unless the file begins with the mark of another one.
    """
    name = "standard input" if path == "-" else path

    def read() -> Iterator[NumberedRecord]:
        number = 0
        try:
            with _open_binary(path) as binary:
                codec = tables.choose_encoding(binary.peek(tables.HEAD_BYTES)[: tables.HEAD_BYTES], encoding, name)
                # With the default `newline`, a lone \r would end a line. Bytes that do not decode become surrogates.
                lines = io.TextIOWrapper(binary, codec, errors="surrogateescape", newline="\n")
                for number, line in enumerate(lines, 1):
                    text = line[:-2] if line.endswith("\r\n") else line.removesuffix("\n")
                    yield number, _split_line(text, text_columns)
        except UnicodeDecodeError as error:  # Of a codec that cannot go on after an error, such as UTF-16's.
            required = f"be {error.encoding} throughout"
            raise UserError(Problem(name, required, f"{error.reason} after line {number}", "Set --encoding.")) from None
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            received = f"a file that is damaged or truncated after line {number} ({error})"
            raise UserError(Problem(name, "be complete", received)) from None

    return InputSource(name, "line", text_columns, read, rereadable=path != "-" and os.path.isfile(path))


def table_source(path: str, text_columns: tuple[str, ...], table_format: TableFormat) -> InputSource:
    """The records of a local table."""

    def read() -> Iterator[NumberedRecord]:
        for number, record in tables.read_records(path, table_format, text_columns):
            yield number, record if isinstance(record, str) else _find_bad_value(record, text_columns) or record

    unit = tables.record_unit(path)
    return InputSource(path, unit, text_columns, read, rereadable=os.path.isfile(path), no_texts=tables.MISSING_TEXTS)


def check_columns(source: InputSource, columns: Sequence[str]) -> None:
    """Raises UserError for columns of a table that cannot be written back: repeated names, or undecoded ones."""
    problems = []
    if repeated := sorted({name for name in columns if columns.count(name) > 1}):
        received = ", ".join(map(repr, repeated))
        problems.append(Problem(source.name, "have every column once, to be written back", received))
    if undecoded := [reason for name in columns if (reason := tables.find_undecoded("the header", name))]:
        problems.append(Problem(source.name, "have column names that can be read", undecoded[0]))
    if problems:
        raise UserError(*problems)


def _open_binary(path: str) -> Any:
    if path == "-":
        return sys.stdin.buffer
    return gzip.open(path) if path.lower().endswith(".gz") else open(path, "rb")


def _split_line(text: str, text_columns: tuple[str, ...]) -> dict[str, Any] | str:
    """The columns of a line or an argument, or why it has none."""
    if _is_undecoded(text):
        return "bytes that are not of the encoding (--encoding=cp1252?)"
    if len(text_columns) == 1:
        return {text_columns[0]: text}
    texts = text.split("\t") if text.strip() else [""] * len(text_columns)
    if len(texts) != len(text_columns):
        return f"{text[:40]!r}, which is not two texts separated by a tab"
    return dict(zip(text_columns, texts, strict=True))


def _split_value(value: Any, text_columns: tuple[str, ...]) -> dict[str, Any] | str:
    """The columns of a value of a list, or why it has none."""
    texts = list(value) if isinstance(value, list | tuple) else [value]
    if len(texts) != len(text_columns) or not all(isinstance(text, str) for text in texts):
        return f"{repr(value)[:40]}, which is not {'two texts' if len(text_columns) == 2 else 'a text'}"
    if any(map(_is_undecoded, texts)):
        return "characters that are not of Unicode"
    return dict(zip(text_columns, texts, strict=True))


def _find_bad_value(record: dict[str, Any], text_columns: tuple[str, ...]) -> str | None:
    """Why a record cannot be scored or written back; None if it can."""
    for name, value in record.items():
        text = json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else value
        if reason := tables.find_undecoded(name, text):
            return reason
        if name in text_columns and isinstance(value, list | dict | bytes):
            return f"a {type(value).__name__} in {name!r}, not a text"
    return None


def _is_undecoded(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def texts_of(record: dict[str, Any], source: InputSource) -> list[str]:
    """The texts of a record of the source. A value that is missing is an empty text."""
    texts = [_text_of(record[column]) for column in source.text_columns]
    return ["" if text.strip() in source.no_texts else text for text in texts]


def _text_of(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _kind(value: Any) -> type:
    """bool, int or float for what a column of such values can hold; str for anything else."""
    kind = type(value)
    return kind if kind in (bool, float) or (kind is int and abs(value) < 1 << 63) else str


def unreadable_error(source: InputSource, first: Sequence[tuple[int, str]], count: int) -> UserError:
    """The error for `count` inputs that cannot be read. `first` holds the numbers of the first ones and the reasons."""
    shown = "; ".join(f"{source.unit} {number}: {reason}" for number, reason in first)
    received = f"{count:,} that cannot: {shown}{'; ...' if count > len(first) else ''}"
    advice = "Correct them: output n is of input n, so that none is left out."
    return UserError(Problem(f"Every {source.unit} of {source.name}", "be one that can be read", received, advice))


def no_input_error(source: InputSource) -> UserError:
    """The error for a source without any input."""
    return UserError(Problem(source.name, "hold at least one text", "none"))


def inspect_source(source: InputSource) -> InputSummary:
    """Read the source once, or what is known of one that cannot be read twice.

    Raises UserError with the inputs that cannot be read, or if there are none, and what tables.read_records raises.
    """
    if not source.rereadable:
        return InputSummary(None, dict.fromkeys(source.text_columns, frozenset({str})))
    rows, unreadable = 0, 0
    first: list[tuple[int, str]] = []
    types: dict[str, set[type]] = {}
    for number, record in source.read():
        rows += 1
        if isinstance(record, str):
            unreadable += 1
            if unreadable <= MAX_REPORTED:
                first.append((number, record))
            continue
        for column, value in record.items():
            found = types.setdefault(column, set())
            if value is not None:
                found.add(_kind(value))
    if unreadable:
        raise unreadable_error(source, first, unreadable)
    if not rows:
        raise no_input_error(source)
    return InputSummary(rows, {column: frozenset(found) for column, found in types.items()})
