"""Rows of (id, text, label) from the IMDB archive, the movie snippets, and CSV, TSV or JSONL files.

Nothing is unpacked to disk: archives are read as streams, and a member that would leave its folder
is refused all the same.
"""

import csv
import dataclasses
import io
import json
import re
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from trainer.data import downloads

csv.field_size_limit(1 << 30)


@dataclasses.dataclass(frozen=True)
class Row:
    id: int | str
    text: str
    text_b: str | None
    label: str  # as read
    split: str  # "train", "test", or "" where the source has no split of its own


@dataclasses.dataclass
class BadRows:
    """Rows that cannot be used, as they are met: where, and why."""

    found: list[str] = dataclasses.field(default_factory=list)

    def add(self, where: str, why: str) -> None:
        self.found.append(f"{where}: {why}")

    def refuse(self, source: str) -> None:
        """Raises ValueError with the count and the first of them, unless there are none."""
        if self.found:
            shown = "; ".join(self.found[:5]) + ("; ..." if len(self.found) > 5 else "")
            raise ValueError(
                f"Every row of {source} must have the columns of its header, a text and a label, in UTF-8. "
                f"Received: {len(self.found)} that do not: {shown}. Mend them, or leave them out with --bad_rows=skip."
            )


# --- Movie snippets -------------------------------------------------------------------------------


def read_movie_snippets(*, ratings: bool) -> Iterator[Row]:
    """The 10,605 snippets; their label is the mean rating in [-4, 4], or positive (above 0) and negative."""
    with tempfile.TemporaryDirectory() as temporary:
        sdist = downloads.fetch_package(downloads.VADER, Path(temporary))
        with tarfile.open(sdist) as outer:
            inner = next(m for m in outer if m.name.endswith("/hutto_ICWSM_2014.tar.gz"))
            with tarfile.open(fileobj=outer.extractfile(inner)) as archive:
                member = next(m for m in archive if Path(m.name).name == "movieReviewSnippets_GroundTruth.txt")
                file = archive.extractfile(member)
                assert file is not None
                lines = file.read().decode("utf-8").splitlines()
    for number, line in enumerate(lines):
        _, rating, text = line.split("\t", 2)
        yield Row(number, text, None, rating if ratings else ("positive" if float(rating) > 0 else "negative"), "")


# --- IMDB -----------------------------------------------------------------------------------------

_REVIEW = re.compile(r"(?:.*/)?((train|test)/(pos|neg)/[^/]+\.txt)")
# Of a member, unpacked: gzip makes a thousand bytes of one. A review has at most 14 kB; the original archive also holds
# bags of words, of tens of MB.
MEMBER_BYTES = 1 << 26
_LABELS = {"pos": "positive", "neg": "negative"}


def read_imdb(source: str, bad: BadRows) -> Iterator[Row]:
    """The reviews of aclImdb, a folder or a tar archive: {train,test}/{pos,neg}/*.txt, in the order of their names."""
    path = Path(source)
    if not path.exists():
        raise ValueError(f"--source must name the IMDB archive or its folder. Received: {source}, which is not there.")
    files = _folder_files(path) if path.is_dir() else _archive_files(path)
    found = 0
    for name, data in files:
        match = _REVIEW.fullmatch(name)
        if not match:
            continue  # the unlabelled reviews, the vocabulary, the README
        found += 1
        try:
            yield Row(match[1], data.decode("utf-8"), None, _LABELS[match[3]], match[2])
        except UnicodeDecodeError as error:
            bad.add(name, f"not UTF-8 at byte {error.start}")
    if not found:
        raise ValueError(
            f"--source must hold reviews as {{train,test}}/{{pos,neg}}/*.txt. Received: {source}, which has none."
        )


def _folder_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.glob("**/*.txt")):
        yield path.relative_to(folder).as_posix(), path.read_bytes()


def _archive_files(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                parts = Path(member.name).parts
                plain = member.isdir() or (member.isreg() and not member.issparse())
                if member.name.startswith("/") or ".." in parts or not plain:
                    raise ValueError(
                        f"{path} must hold plain files inside its folder. Received: the member {member.name!r}. It "
                        "was not read."
                    )
                if member.size > MEMBER_BYTES:
                    raise ValueError(
                        f"{path} must hold files of at most {MEMBER_BYTES:,} bytes. Received: the member "
                        f"{member.name!r}, of {member.size:,}. It was not read."
                    )
                if member.isfile():
                    file = archive.extractfile(member)
                    assert file is not None
                    yield member.name, file.read()
            # tar takes a cut between two members for the end, and gzip checks its sum at its own end only.
            assert archive.fileobj is not None
            rest = archive.fileobj.read(1 << 30)
            if len(rest) < tarfile.BLOCKSIZE or any(rest[: tarfile.BLOCKSIZE]):
                raise EOFError("it has no end mark")
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ValueError(
            f"--source must be a whole tar archive. Received: {path}, which is damaged or cut short ({error}). "
            "Download it again."
        ) from None


# --- CSV, TSV, JSONL ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ColumnNames:
    text: str
    text_pair: str | None
    label: str


def read_table(source: str, columns: ColumnNames, split: str, bad: BadRows, *, quotes: bool = True) -> Iterator[Row]:
    """Rows of a .csv, .tsv or .jsonl file. A row's id is its number from 0, its header aside."""
    path = Path(source)
    if not path.is_file():
        raise ValueError(
            f"The source must be a file. Received: {source}, which is {'a folder' if path.is_dir() else 'not there'}."
        )
    if path.suffix not in (".csv", ".tsv", ".jsonl"):
        raise ValueError(f"The source must end in .csv, .tsv or .jsonl. Received: {source}.")
    # Bytes that are not UTF-8 become lone surrogates, which are found below.
    text = path.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    records = (
        _json_lines(text, bad)
        if path.suffix == ".jsonl"
        else _separated(text, "\t" if path.suffix == ".tsv" else ",", quotes, source, columns, bad)
    )
    number = -1
    for number, (where, record) in enumerate(records):
        if record is None:
            continue
        absent = [name for name in dataclasses.astuple(columns) if name is not None and name not in record]
        if absent:
            bad.add(where, f"no {absent[0]!r} (it has {', '.join(sorted(record))})")
            continue
        texts = [record[columns.text], record[columns.text_pair] if columns.text_pair else None]
        label = record[columns.label]
        if any("\ud800" <= c <= "\udfff" for value in (*texts, label) if value for c in value):
            bad.add(where, "bytes that are not UTF-8")
        elif not all(value.strip() for value in texts if value is not None):
            bad.add(where, "an empty text")
        elif not label.strip():
            bad.add(where, "an empty label")
        else:
            yield Row(number, texts[0] or "", texts[1], label.strip(), split)
    if number < 0:
        raise ValueError(f"{source} must hold rows. Received: none.")


Record = tuple[str, dict[str, str] | None]  # where it stands, and its columns; None if it was found bad


def _separated(
    text: str, delimiter: str, quotes: bool, source: str, columns: ColumnNames, bad: BadRows
) -> Iterator[Record]:
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    # strict: a quote that is never closed is an error, not a text that holds all rows after it.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise ValueError(
            f"{source} must begin with a header. Received: a line that does not parse ({error})."
        ) from None
    twice = sorted({name for name in header if header.count(name) > 1} & {*dataclasses.astuple(columns)})
    if twice:
        raise ValueError(
            f"{source} must have the column {twice[0]!r} once. Received: {header.count(twice[0])} of them."
        )
    absent = [name for name in dataclasses.astuple(columns) if name is not None and name not in header]
    if absent:
        raise ValueError(
            f"{source} must have the column {absent[0]!r}. Received: one with "
            f"{', '.join(map(repr, header)) or 'no columns'}. Set --text_column, --text_pair_column and "
            "--label_column."
        )
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            bad.add(f"line {line}", f"quotes that do not close or are followed by text ({error})")
            yield f"line {line}", None
            continue
        if not fields:
            continue  # a blank line, such as the last
        if len(fields) != len(header):
            bad.add(f"line {line}", f"{len(fields)} columns, not {len(header)}")
            yield f"line {line}", None
        else:
            yield f"line {line}", dict(zip(header, fields, strict=True))


def _json_lines(text: str, bad: BadRows) -> Iterator[Record]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            bad.add(f"line {number}", f"not JSON ({error})")
            record = None
        else:
            if isinstance(record, dict):
                record = {
                    key: value if isinstance(value, str) else json.dumps(value)
                    for key, value in record.items()
                    if value is not None
                }
            else:
                bad.add(f"line {number}", "not a JSON object")
                record = None
        yield f"line {number}", record


# --- Labels ---------------------------------------------------------------------------------------


def is_number(label: str) -> bool:
    try:
        return float(label) - float(label) == 0  # not for inf, nan
    except ValueError:
        return False


def label_kind(labels: Iterable[str], label_type: str) -> str:
    """ "classification" or "regression", as --label_type says.

    auto: a number when every label parses as one and any is not whole or more than 20 differ.
    Raises ValueError for a label that is no number where numbers are asked for.
    """
    different = set(labels)
    odd = sorted(label for label in different if not is_number(label))
    if label_type == "number" and odd:
        raise ValueError(
            f"--label_type=number needs labels that are finite numbers. Received: {', '.join(map(repr, odd[:5]))}."
        )
    if label_type == "number":
        return "regression"
    if label_type == "class" or odd:
        return "classification"
    return "regression" if len(different) > 20 or any(float(label) % 1 for label in different) else "classification"


def class_names(labels: Iterable[str]) -> tuple[str, ...]:
    """The different labels: in the order of their values if all are numbers, of the alphabet otherwise."""
    different = set(labels)
    if all(map(is_number, different)):
        return tuple(sorted(different, key=lambda label: (float(label), label)))
    return tuple(sorted(different))
