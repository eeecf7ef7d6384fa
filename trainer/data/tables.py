"""Tables read as streams: .csv, .tsv, .jsonl, .json, .parquet and .xlsx files, with .gz or not, or in a .zip."""

import codecs
import contextlib
import dataclasses
import gzip
import io
import itertools
import logging
import lzma
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import IO, Any

from trainer.data import json_tables, separated
from trainer.errors import Problem, UsageError, UserError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".xlsx")
# What is looked at before decoding: a byte order mark, or the NUL bytes of UTF-16 without one, a third or more.
# Of Chinese they are few, but not in its header.
HEAD_BYTES = 4096
NUL_SHARE = 0.1
MAX_SHOWN_COLUMNS, MAX_SHOWN_CHARACTERS = 30, 80
# Rows of a .parquet file that are in memory together.
PARQUET_BATCH_ROWS = 1024
# The byte order marks that a file may begin with. That of UTF-32 begins with that of UTF-16.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
# How files begin that are no text, whatever their names say.
_PACKED = {
    b"\x1f\x8b": "a file that gzip has packed",
    b"PK\x03\x04": "a .zip or .xlsx file",
    b"PAR1": "a .parquet file",
}
_SURROGATE = re.compile("[\ud800-\udfff]")
# What the error handler "surrogateescape" makes of bytes that the encoding lacks.
_UNDECODED = re.compile("[\udc80-\udcff]")
# What a damaged file raises. zipfile raises NotImplementedError for a compression that it does not know, and the parser
# of a workbook's XML a SyntaxError.
_DAMAGED = (EOFError, NotImplementedError, SyntaxError, lzma.LZMAError, zipfile.BadZipFile, zlib.error)
_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TableFormat:
    """How a table is written, where its name does not say it. None is the default of its suffix."""

    encoding: str | None = None  # UTF-8, unless the file begins with the mark of another one.
    delimiter: str | None = None  # A comma in .csv, a tab in .tsv, or what the header has.
    escape: str | None = None  # The character before a quote of the text. By default quotes are doubled.
    quotes: bool | None = None  # Whether fields may be in quotes: in .csv they may, in .tsv not.


DEFAULT_FORMAT = TableFormat()
# How pandas writes a missing text.
MISSING_TEXTS = ("nan", "NaN")
# How a delimiter that a shell cannot hold is written.
_DELIMITER_NAMES = {"\\t": "\t", "tab": "\t"}
# The line that a record begins in, or its row in a format without lines, and its values by column or why they cannot
# be used.
NumberedRecord = tuple[int, dict[str, Any] | str]


def parse_delimiter(value: str | None) -> str | None:
    """The character that the flag --delimiter means."""
    return _DELIMITER_NAMES.get(value, value) if value else None


def find_format_problems(table_format: TableFormat) -> list[Problem]:
    """What is wrong with a format that flags have set. A problem's setting is the flag."""
    problems = []
    for flag, value in (("--delimiter", table_format.delimiter), ("--escape", table_format.escape)):
        if value is not None and (len(value) != 1 or value in '"\r\n'):
            problems.append(Problem(flag, "be one character, and no quote", repr(value)))
    if table_format.encoding is not None:
        try:
            io.TextIOWrapper(io.BytesIO(), encoding=table_format.encoding)
        except (LookupError, ValueError):
            required = "be an encoding of Python's, such as cp1252, latin-1 or utf-16-le"
            problems.append(Problem("--encoding", required, table_format.encoding))
    return problems


def shorten(value: str) -> str:
    """The beginning of a name or value for a message."""
    return value if len(value) <= MAX_SHOWN_CHARACTERS else f"{value[:MAX_SHOWN_CHARACTERS]}..."


def _suffix(name: str) -> str:
    return os.path.splitext(name.lower())[1]


def choose_encoding(head: bytes, encoding: str | None, source: str) -> str:
    """The encoding of a file that begins with `head`: that of its byte order mark, or else `encoding`, or else UTF-8.

    Raises UserError if it has NUL bytes as UTF-16 has them, and neither a mark nor an encoding that was given; and if
    it is no text.
    """
    if kind := next((kind for start, kind in _PACKED.items() if head.startswith(start)), None):
        raise UserError(Problem(source, "be text", kind, "Unpack it, or give its file the ending of what it is."))
    chosen = _find_encoding(head, encoding)
    if chosen is None:
        required = "begin with a byte order mark, unless its encoding is UTF-8"
        raise UserError(Problem(source, required, "NUL bytes between the letters", f"Set --encoding={_guess(head)}."))
    return chosen


def _find_encoding(head: bytes, encoding: str | None) -> str | None:
    """What choose_encoding returns; None where it raises for NUL bytes. A few of them are characters."""
    chosen = next((name for mark, name in _BYTE_ORDER_MARKS if head.startswith(mark)), encoding or None)
    utf_16 = any(part.count(0) > NUL_SHARE * len(part) for part in (head, head.partition(b"\n")[0]))
    return "utf-8" if chosen is None and not utf_16 else chosen


def _guess(head: bytes) -> str:
    """The encoding of a text of mostly ASCII characters, by the places of its NUL bytes."""
    even, odd = head[::2].count(0), head[1::2].count(0)
    if even + odd > 0.6 * len(head):  # Three of four bytes.
        return "utf-32-le" if head[3::4].count(0) > head[::4].count(0) else "utf-32-be"
    return "utf-16-le" if odd > even else "utf-16-be"


def decode(data: bytes, encoding: str | None) -> str:
    """A text of a file of its own: in the encoding of its mark, in `encoding`, or in UTF-8. Raises UnicodeError."""
    chosen = _find_encoding(data[:HEAD_BYTES], encoding)
    if chosen is None:
        raise UnicodeError("NUL bytes between the letters")
    return data.decode(chosen)


def is_table(path: str) -> bool:
    """Whether a path is that of a table, by its name alone. A .zip is one."""
    return _suffix(path) == ".zip" or _suffix(path.lower().removesuffix(".gz")) in SUFFIXES


def record_unit(path: str) -> str:
    """What the numbers of read_records count: "line" or "row"."""
    return "row" if _suffix(path.lower().removesuffix(".gz")) in (".parquet", ".xlsx") else "line"


def column_names(path: str, table_format: TableFormat) -> list[str]:
    """The columns of a table in their order; of JSON, the keys of the first object. Raises what read_records raises."""
    with _open_table(path, table_format, ()) as (columns, _):
        return columns


def read_records(path: str, table_format: TableFormat, required: Sequence[str]) -> Iterator[NumberedRecord]:
    """The records of a table, a part in memory at a time.

    Values are strings in .csv and .tsv files, and elsewhere what the file holds: None, numbers, lists and others too. A
    header is line or row 1; rows of .parquet count from 1. A record that lacks one of the columns `required`, or whose
    values of them were not decoded, is replaced by the reason. Bytes of other columns that are not of the encoding are
    lone surrogates, which the error handler "surrogateescape" writes again as they were.

    Raises UserError for a file that is no table, is damaged, or whose header lacks one of `required`, and UsageError
    for a format that cannot be.
    """
    with _open_table(path, table_format, required) as (_, records):
        for number, record in records:
            yield number, record if isinstance(record, str) else _find_bad_value(record, required) or record


def _find_bad_value(record: dict[str, Any], required: Sequence[str]) -> str | None:
    """Why a record's values cannot be used; None if they can."""
    for name in required:
        if name not in record:
            return f"no {name!r} (it has {', '.join(map(str, record))})"
        if reason := find_undecoded(name, record[name]):
            return reason
    return None


def find_undecoded(name: str, value: object) -> str | None:
    """Why the value of a column was not decoded; None if it was, or is no string."""
    if not isinstance(value, str) or value.isascii() or not _SURROGATE.search(value):
        return None
    if _UNDECODED.search(value):
        return f"bytes in {name!r} that are not of the encoding (--encoding=cp1252?)"
    return f"half a character in {name!r}, a lone surrogate"


@contextlib.contextmanager
def _open_table(
    path: str, table_format: TableFormat, required: Sequence[str]
) -> Iterator[tuple[list[str], Iterator[NumberedRecord]]]:
    """The columns and records of a table, while it is open."""
    problems = find_format_problems(table_format)
    if problems:
        raise UsageError(*problems)
    if not os.path.isfile(path):
        received = f"{path}, which {'is a folder' if os.path.isdir(path) else 'does not exist'}"
        raise UserError(Problem("The source", "be a file", received))
    try:
        with contextlib.ExitStack() as stack:
            name, file = _open_file(path, stack)
            suffix = _suffix(name)
            if suffix not in SUFFIXES:
                required_name = f"end in {', '.join(SUFFIXES)}, with .gz or not, or be a .zip of one such file"
                raise UserError(Problem("The source", required_name, path))
            if suffix == ".parquet":
                columns, records = _read_parquet(stack.enter_context(_seekable(file)))
            elif suffix == ".xlsx":
                columns, records = _read_workbook(stack.enter_context(_seekable(file)), path)
            else:
                columns, records = _read_text(file, suffix, path, table_format, required)
            if "json" not in suffix:  # Objects may have different keys.
                _check_columns(columns, path, required)
            yield columns, records
    except UnicodeError as error:
        raise UserError(Problem(path, "be of its encoding throughout", str(error), "Set --encoding.")) from None
    except (*_DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # Of the disk. Those of damaged bzip2 and gzip data have no number.
        raise UserError(Problem(path, "be complete", f"a file that is damaged or truncated ({error})")) from None


def _open_file(path: str, stack: contextlib.ExitStack) -> tuple[str, Any]:
    """(the name of the table itself, its bytes unpacked)."""
    if path.lower().endswith(".gz"):
        return path[: -len(".gz")], stack.enter_context(gzip.open(path, "rb"))
    if _suffix(path) != ".zip":
        return path, stack.enter_context(open(path, "rb"))
    archive = stack.enter_context(zipfile.ZipFile(path))
    # A Mac adds a folder of its own.
    members = [m for m in archive.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX/")]
    if len(members) != 1:
        received = ", ".join(member.filename for member in members[:5]) or "none"
        raise UserError(Problem(path, "hold one file", received, "Unpack it and name one of them."))
    if members[0].flag_bits & 1:
        raise UserError(Problem(path, "be readable without a password", f"{members[0].filename}, which is encrypted"))
    return members[0].filename, stack.enter_context(archive.open(members[0]))


@contextlib.contextmanager
def _seekable(file: Any) -> Iterator[IO[bytes]]:
    """The same file, unpacked to the disk if it was packed."""
    if isinstance(file, io.BufferedReader):
        yield file
        return
    with tempfile.TemporaryFile() as unpacked:
        shutil.copyfileobj(file, unpacked)
        unpacked.seek(0)
        yield unpacked


def _check_columns(columns: Sequence[str], source: str, required: Sequence[str]) -> None:
    problems = []
    shown = ", ".join(repr(shorten(name)) for name in columns[:MAX_SHOWN_COLUMNS])
    received = f"a table with {shown or 'no columns'}{', ...' if len(columns) > MAX_SHOWN_COLUMNS else ''}"
    advice = "Set the flag that names it, such as --text_column."
    if any(find_undecoded("the header", name) for name in columns):
        advice = "The header has bytes that are not of the encoding. Set --encoding, such as cp1252."
    for name in dict.fromkeys(required):
        if f'"{name}"' in columns:
            problems.append(
                Problem(source, f"have the column {name!r}", received, "Set --quotes: fields are in quotes.")
            )
        elif name not in columns:
            problems.append(Problem(source, f"have the column {name!r}", received, advice))
        elif columns.count(name) > 1:
            problems.append(Problem(source, f"have the column {name!r} once", f"{columns.count(name)} of them"))
    if problems:
        raise UserError(*problems)


def _read_text(
    file: Any, suffix: str, source: str, table_format: TableFormat, required: Sequence[str]
) -> tuple[list[str], Iterator[NumberedRecord]]:
    encoding = choose_encoding(file.peek(HEAD_BYTES)[:HEAD_BYTES], table_format.encoding, source)
    # Bytes that are not of the encoding become lone surrogates, which the check of each record refuses.
    json_lines = "json" in suffix
    stream = io.TextIOWrapper(file, encoding, errors="surrogateescape", newline="\n" if json_lines else "")
    if json_lines:
        return json_tables.read_json(stream, source)
    return separated.read_separated(
        stream,
        source,
        default_delimiter="\t" if suffix == ".tsv" else ",",
        delimiter=table_format.delimiter,
        escape=table_format.escape,
        quotes=table_format.quotes,
        default_quotes=suffix != ".tsv",
        required=required,
    )


def _read_parquet(file: IO[bytes]) -> tuple[list[str], Iterator[NumberedRecord]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(file, pre_buffer=False)
    except (pyarrow.ArrowException, OSError) as error:
        raise EOFError(error) from None

    def records() -> Iterator[NumberedRecord]:
        try:
            batches = table.iter_batches(PARQUET_BATCH_ROWS)
            yield from enumerate(itertools.chain.from_iterable(batch.to_pylist() for batch in batches), 1)
        except (pyarrow.ArrowException, OSError, OverflowError) as error:
            raise EOFError(error) from None

    return table.schema_arrow.names, records()


def _read_workbook(file: IO[bytes], source: str) -> tuple[list[str], Iterator[NumberedRecord]]:
    """The first sheet, with the values that formulas had when it was saved."""
    import openpyxl
    from openpyxl.utils.escape import unescape

    try:
        sheets = openpyxl.load_workbook(file, read_only=True, data_only=True).worksheets
    except (KeyError, ValueError) as error:  # An archive without a workbook, or with one that does not parse.
        raise EOFError(error) from None
    if not sheets:
        raise UserError(Problem(source, "have a sheet with cells", "none"))
    if len(sheets) > 1:
        _LOG.warning("%s has %d sheets. The first, %r, is read.", source, len(sheets), sheets[0].title)
    sheets[0].reset_dimensions()  # Some programs write wrong ones.
    rows = enumerate(map(_without_empty_end, sheets[0].iter_rows(values_only=True)), 1)
    _, header = next(((number, row) for number, row in rows if row), (1, ()))
    columns = ["" if name is None else str(name) for name in header]

    def records() -> Iterator[NumberedRecord]:
        for number, row in rows:
            if len(row) > len(columns):
                yield number, f"{len(row)} columns, not {len(columns)}"
            elif row:
                values = (unescape(value) if isinstance(value, str) else value for value in row)
                yield number, dict(itertools.zip_longest(columns, values))

    return columns, records()


def _without_empty_end(row: Sequence[object]) -> Sequence[object]:
    return row[: next((end for end in range(len(row), 0, -1) if row[end - 1] is not None), 0)]
