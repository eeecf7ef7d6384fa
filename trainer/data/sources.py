"""Rows of texts and labels from the IMDB archive, the movie snippets, and CSV, TSV or JSONL files.

Archives are read as streams: nothing is unpacked to disk. Rows that cannot be used are appended to the list `bad_rows`
that a reader is given, each as "place: reason".
"""

import csv
import dataclasses
import io
import json
import re
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from trainer.data import downloads
from trainer.errors import Problem, UserError

MAX_FIELD_BYTES = 1 << 30
csv.field_size_limit(MAX_FIELD_BYTES)

MAX_REPORTED_ROWS = 5


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a source. Its id is unique within its split."""

    id: int | str  # Its number from 0, or its file's path.
    text: str
    text_b: str | None  # The second text of a pair.
    label: str  # As it was read: a class's name, or a number.
    split: str  # "train", "test", or "" if the source has no splits.


def find_bad_row_problems(source: str, bad_rows: Sequence[str]) -> list[Problem]:
    """One problem with the number of bad rows and the first of them; none if there are none."""
    if not bad_rows:
        return []
    shown = "; ".join(bad_rows[:MAX_REPORTED_ROWS]) + ("; ..." if len(bad_rows) > MAX_REPORTED_ROWS else "")
    return [
        Problem(
            f"Every row of {source}",
            "have the columns of its header, a text and a label, in UTF-8",
            f"{len(bad_rows)} rows that do not: {shown}",
            "Correct them, or leave them out with --bad_rows=skip.",
        )
    ]


# --- Movie snippets -------------------------------------------------------------------------------


def read_movie_snippets(*, ratings: bool) -> Iterator[Row]:
    """The 10,605 snippets. With `ratings` labels are mean ratings, -4 to 4, or else "positive" (above 0) or "negative".

    Raises UserError if the package that holds them cannot be downloaded.
    """
    with tempfile.TemporaryDirectory() as temporary:
        sdist = downloads.fetch_package(downloads.VADER, Path(temporary))
        with tarfile.open(sdist) as outer:
            inner = next(m for m in outer if m.name.endswith("/hutto_ICWSM_2014.tar.gz"))
            with tarfile.open(fileobj=outer.extractfile(inner)) as archive:
                member = next(m for m in archive if Path(m.name).name == "movieReviewSnippets_GroundTruth.txt")
                lines = _read_member(archive, member).decode("utf-8").splitlines()
    for number, line in enumerate(lines):
        _, rating, text = line.split("\t", 2)
        yield Row(number, text, None, rating if ratings else ("positive" if float(rating) > 0 else "negative"), "")


# --- IMDB -----------------------------------------------------------------------------------------

_REVIEW = re.compile(r"(?:.*/)?((train|test)/(pos|neg)/[^/]+\.txt)")
# The most bytes of an archive's member, unpacked, since a gzip file can hold a thousand times its size. A review has at
# most 14 kB, but the original archive also holds bags of words of tens of MB.
MAX_MEMBER_BYTES = 1 << 26
# The zeros after an archive's last member are read as far as this.
MAX_TRAILING_BYTES = 1 << 30
_LABELS = {"pos": "positive", "neg": "negative"}


def read_imdb(source: str, bad_rows: list[str]) -> Iterator[Row]:
    """The reviews of a folder or tar archive of IMDB, {train,test}/{pos,neg}/*.txt, in the order of their names.

    Raises UserError if there are none, or if the archive is damaged or unsafe.
    """
    path = Path(source)
    if not path.exists():
        raise UserError(Problem("--source", "name the IMDB archive or its folder", f"{source}, which does not exist"))
    reviews = 0
    for name, data in _folder_files(path) if path.is_dir() else _archive_files(path):
        match = _REVIEW.fullmatch(name)
        if not match:
            continue  # Reviews without a label, the vocabulary, the README.
        reviews += 1
        try:
            yield Row(match[1], data.decode("utf-8"), None, _LABELS[match[3]], match[2])
        except UnicodeDecodeError as error:
            bad_rows.append(f"{name}: not UTF-8 at byte {error.start}")
    if not reviews:
        required = "hold reviews as {train,test}/{pos,neg}/*.txt"
        raise UserError(Problem("--source", required, f"{source}, which has none"))


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None  # Every regular file has contents.
    return file.read()


def _folder_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.glob("**/*.txt")):
        yield path.relative_to(folder).as_posix(), path.read_bytes()


def _archive_files(path: Path) -> Iterator[tuple[str, bytes]]:
    source = str(path)
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                parts = Path(member.name).parts
                plain = member.isdir() or (member.isreg() and not member.issparse())
                if member.name.startswith("/") or ".." in parts or not plain:
                    required = "hold plain files inside its folder"
                    raise UserError(Problem(source, required, f"the member {member.name!r}", "It was not read."))
                if member.size > MAX_MEMBER_BYTES:
                    required = f"hold files of at most {MAX_MEMBER_BYTES:,} bytes"
                    received = f"the member {member.name!r} of {member.size:,} bytes"
                    raise UserError(Problem(source, required, received, "It was not read."))
                if member.isfile():
                    yield member.name, _read_member(archive, member)
            # tarfile ends without an error where an archive was truncated between two members, and gzip verifies its
            # checksum only at its end.
            assert archive.fileobj is not None
            rest = archive.fileobj.read(MAX_TRAILING_BYTES)
            if len(rest) < tarfile.BLOCKSIZE or any(rest[: tarfile.BLOCKSIZE]):
                raise EOFError("it has no end mark")
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        received = f"{path}, which is damaged or truncated ({error})"
        raise UserError(Problem("--source", "be a complete tar archive", received, "Download it again.")) from None


# --- CSV, TSV, JSONL ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ColumnNames:
    """The columns of a table that are read: of a text, of the second text of pairs or None, of a label."""

    text: str
    text_pair: str | None
    label: str

    def used(self) -> list[str]:
        """The names without None."""
        return [name for name in (self.text, self.text_pair, self.label) if name is not None]


DEFAULT_COLUMNS = ColumnNames("text", None, "label")


def read_table(
    source: str, columns: ColumnNames, split: str, bad_rows: list[str], *, quotes: bool = True
) -> Iterator[Row]:
    """Rows of a .csv, .tsv or .jsonl file, all in `split`. A row's id is its number from 0, without the header.

    Raises UserError for a file that is no such table, has no rows or lacks one of `columns`.
    """
    path = Path(source)
    if not path.is_file():
        received = f"{source}, which {'is a folder' if path.is_dir() else 'does not exist'}"
        raise UserError(Problem("The source", "be a file", received))
    if path.suffix not in (".csv", ".tsv", ".jsonl"):
        raise UserError(Problem("The source", "end in .csv, .tsv or .jsonl", source))
    # Bytes that are not UTF-8 become lone surrogates, which the check of each row refuses.
    text = path.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    if path.suffix == ".jsonl":
        records = _json_lines(text)
    else:
        records = _separated_lines(text, "\t" if path.suffix == ".tsv" else ",", quotes, source, columns)
    number = -1
    for number, (line, record) in enumerate(records):
        reason = record if isinstance(record, str) else _find_bad_value(record, columns)
        if reason:
            bad_rows.append(f"line {line}: {reason}")
        elif isinstance(record, dict):
            text_b = record[columns.text_pair] if columns.text_pair else None
            yield Row(number, record[columns.text], text_b, record[columns.label].strip(), split)
    if number < 0:
        raise UserError(Problem(source, "hold rows", "none"))


def _find_bad_value(record: dict[str, str], columns: ColumnNames) -> str | None:
    """Why a record's values cannot be used; None if they can."""
    missing = [name for name in columns.used() if name not in record]
    if missing:
        return f"no {missing[0]!r} (it has {', '.join(sorted(record))})"
    values = [record[name] for name in columns.used()]
    if any("\ud800" <= c <= "\udfff" for value in values for c in value):
        return "bytes that are not UTF-8"
    if not all(value.strip() for value in values[:-1]):
        return "an empty text"
    return None if values[-1].strip() else "an empty label"


# The line that a record begins in, from 1, and its values by column, or why it cannot be used.
NumberedRecord = tuple[int, dict[str, str] | str]


def _separated_lines(
    text: str, delimiter: str, quotes: bool, source: str, columns: ColumnNames
) -> Iterator[NumberedRecord]:
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    # Without `strict`, a quote that is never closed would make one text of all rows after it.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise UserError(Problem(source, "begin with a header", f"a line that does not parse ({error})")) from None
    _check_header(header, source, columns)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, f"quotes that do not close or are followed by text ({error})"
            continue
        if not fields:
            continue  # A blank line, such as the last.
        if len(fields) != len(header):
            yield line, f"{len(fields)} columns, not {len(header)}"
        else:
            yield line, dict(zip(header, fields, strict=True))


def _check_header(header: Sequence[str], source: str, columns: ColumnNames) -> None:
    problems = []
    for name in dict.fromkeys(columns.used()):
        if name not in header:
            received = f"a table with {', '.join(map(repr, header)) or 'no columns'}"
            advice = "Set --text_column, --text_pair_column and --label_column."
            problems.append(Problem(source, f"have the column {name!r}", received, advice))
        elif header.count(name) > 1:
            problems.append(Problem(source, f"have the column {name!r} once", f"{header.count(name)} of them"))
    if problems:
        raise UserError(*problems)


def _json_lines(text: str) -> Iterator[NumberedRecord]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            yield number, f"not JSON ({error})"
            continue
        if not isinstance(record, dict):
            yield number, "not a JSON object"
            continue
        yield (
            number,
            {
                key: value if isinstance(value, str) else json.dumps(value)
                for key, value in record.items()
                if value is not None
            },
        )
