"""Records of a table whose columns a character separates: CSV and TSV as spreadsheets and databases write them."""

import collections
import csv
import itertools
import logging
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Literal, TextIO

from trainer.errors import Problem, UserError

MAX_FIELD_BYTES = 1 << 30
csv.field_size_limit(MAX_FIELD_BYTES)

# What is looked for where a header has one column only.
DELIMITERS = (",", ";", "\t", "|")
_LOG = logging.getLogger(__name__)
# A first line of Excel's own, which names the delimiter.
_DELIMITER_LINE = re.compile(r"sep=([^\r\n])\r?\n?")


def read_separated(
    stream: TextIO,
    source: str,
    *,
    default_delimiter: str,
    delimiter: str | None,
    escape: str | None,
    quotes: bool | None,
    default_quotes: bool,
    required: Sequence[str],
) -> tuple[list[str], Iterator[tuple[int, dict[str, Any] | str]]]:
    """(the columns, the records of a stream that was opened with newline="").

    A record is the line that it begins in, and its values by column or why they cannot be used. With `delimiter` None,
    the header's own is found; with `quotes` None, fields are in quotes as `default_quotes` says, and quotes that span
    what looks like several rows are refused. Raises UserError for a header that does not parse.
    """
    first, lines_before, named = _read_first_line(stream)
    quoted = default_quotes if quotes is None else quotes
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    options: dict[str, Any] = dict(quoting=quoting, escapechar=escape)
    options["delimiter"] = delimiter or named or _find_delimiter(first, default_delimiter, required, options)
    lines: list[str] = []  # Those of the record that is read.
    # Without `strict`, a quote that is never closed would make one text of all rows after it.
    reader = csv.reader(_keep(itertools.chain([first], stream), lines), strict=True, **options)
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise UserError(Problem(source, "begin with a header", f"a line that does not parse ({error})")) from None
    if not header:
        raise UserError(Problem(source, "begin with a header", "an empty file"))

    def records() -> Iterator[tuple[int, dict[str, Any] | str]]:
        rows, spaced = 0, collections.Counter[int]()  # Of one line; those in which a column begins with white space.
        warns = quotes is None and not quoted
        for begin, fields in _read_fields(reader, lines, lines_before):
            if len(lines) == 1 and not isinstance(fields, str):
                rows += 1
                spaced.update(column for column, field in enumerate(fields) if field[:1].isspace())
            elif quotes is None and not isinstance(fields, str):
                indented = {column for column, count in spaced.items() if 2 * count > rows > 1}
                if _spans_rows(lines, header, required, indented, options):
                    fields = "quotes around what looks like several rows (--quotes if it is one text)"
            if isinstance(fields, str):
                yield from _refuse(lines, begin, fields, escape)
            elif not fields:
                continue  # A blank line, such as the last.
            elif len(fields) != len(header):
                hint = _escape_hint(lines, escape)
                if not hint and not quoted and any(field.startswith('"') for field in fields):
                    hint = " (--quotes if fields are in quotes)"
                yield begin, f"{len(fields)} columns, not {len(header)}{hint}"
            else:
                if warns and any(map(_is_quoted, fields)):
                    warns = False
                    _LOG.warning("line %d of %s has a field in quotes. --quotes removes them.", begin, source)
                yield begin, dict(zip(header, fields, strict=True))

    return header, records()


def _read_first_line(stream: TextIO) -> tuple[str, int, str | None]:
    """(the line that the header begins in, the lines before it, the delimiter that one of those names)."""
    first, lines_before = stream.readline(), 0
    while first and not first.strip("\r\n "):
        first, lines_before = stream.readline(), lines_before + 1
    if named := _DELIMITER_LINE.fullmatch(first):
        return stream.readline(), lines_before + 1, named[1]
    return first, lines_before, None


def _is_quoted(field: str) -> bool:
    """Whether a field looks as CSV writes one that has quotes in it: "he said ""hi"" again"."""
    inner = field[1:-1].replace('""', "")
    return len(inner) < len(field) - 2 and field[0] == field[-1] == '"' and '"' not in inner


def _keep(lines: Iterator[str], kept: list[str]) -> Iterator[str]:
    for line in lines:
        kept.append(line)
        yield line


def _read_fields(reader: Any, lines: list[str], lines_before: int) -> Iterator[tuple[int, list[str] | str]]:
    """(the line that it begins in, its fields or why they do not parse) of each record. `lines` then has its lines."""
    while True:
        lines.clear()
        begin = lines_before + reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fields = f"quotes that do not close or are followed by text ({error})"
        yield begin, fields


def _refuse(lines: Sequence[str], begin: int, reason: str, escape: str | None) -> Iterator[tuple[int, str]]:
    """(its number, why it is lost) of each line of a record that cannot be used."""
    hint = _escape_hint(lines, escape) or " (--noquotes if a quote is a character of the text)"
    if len(lines) > 1:
        reason = f"in lines {begin} to {begin + len(lines) - 1}, {reason}"
    for number, line in enumerate(lines, begin):  # Each may be a row.
        if line.strip():
            yield number, reason + hint


def _find_delimiter(header: str, default: str, required: Sequence[str], options: dict[str, Any]) -> str:
    """The first that gives the required columns, or else the default; what divides a header that it leaves whole."""

    def columns(delimiter: str) -> list[str]:
        # The header may go on in the next line; this needs a part of it only.
        return next(csv.reader([header], delimiter=delimiter, **options), [])

    candidates = dict.fromkeys((default, *DELIMITERS))
    for delimiter in candidates if required else ():
        if set(required) <= set(columns(delimiter)):
            return delimiter
    if len(columns(default)) > 1:
        return default
    return max(candidates, key=lambda delimiter: len(columns(delimiter)))


def _spans_rows(
    lines: Sequence[str],
    header: Sequence[str],
    required: Sequence[str],
    indented: Collection[int],
    options: dict[str, Any],
) -> bool:
    """Whether a record over several lines holds rows, which a stray quote at the beginning of a field makes of it.

    It does if one of the lines inside is a row by itself, or both of two lines are with their quotes as characters.
    Prose with a comma is none: white space follows the comma, or nothing does. That shows nothing in a column that is
    `indented`: in most rows before.
    """

    def is_row(line: str, **changes: Any) -> bool:
        fields = next(csv.reader([line], **(options | changes)), [])
        if len(fields) != len(header):
            return False
        values = dict(zip(header, fields, strict=True))
        prose = any(fields[column][:1].isspace() for column in range(1, len(fields)) if column not in indented)
        return all(values.get(name, "x").strip() for name in required) and not prose

    if len(lines) < 2 or len(header) < 2:
        return False
    if len(lines) == 2:
        return all(is_row(line, quoting=csv.QUOTE_NONE) for line in lines)
    return any(is_row(line) for line in lines[1:-1])


def _escape_hint(lines: Sequence[str], escape: str | None) -> str:
    escaped = escape is None and any('\\"' in line for line in lines)
    return ' (--escape=\\ if \\" is a quote of the text)' if escaped else ""
