"""The rows of a task's source: downloaded if it is a URL, read, and checked. What prepare_data.py's flags mean."""

import array
import bisect
import dataclasses
import fnmatch
import functools
import glob
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from trainer.data import downloads, glue, label_sets, labels, movie_reviews, sources, tables, tasks
from trainer.data.sources import Row
from trainer.data.stored_rows import AnyRow, StoredRow, TextStore, store_row
from trainer.errors import Problem, UserError
from trainer.storage import fs, gcs

MAX_SHOWN_LABELS = 5
# A task with files of its own form -> its reader: a function of the local path, and of the list to which it appends
# each row that cannot be used, as "place: reason".
READERS: dict[str, Callable[[str, list[str]], Iterable[Row]]] = {
    "imdb": movie_reviews.read_imdb,
    **{task: functools.partial(glue.read_rows, task=task) for task in tasks.GLUE},
}

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class SourceOptions:
    """What is read and how. The fields are the flags of scripts/prepare_data.py, by their names."""

    task: str
    source: str | None = None
    test_source: str | None = None
    validation_source: str | None = None
    text_column: str = sources.DEFAULT_COLUMNS.text
    text_pair_column: str | None = None
    label_column: str = sources.DEFAULT_COLUMNS.label
    weight_column: str | None = None
    keep_columns: Sequence[str] = ()
    label_type: labels.LabelType = "auto"
    multi_label: bool = False
    label_delimiter: str | None = None
    label_columns: Sequence[str] = ()
    missing_labels: Sequence[str] = labels.MISSING_LABELS
    encoding: str | None = None
    delimiter: str | None = None
    escape: str | None = None
    quotes: bool | None = None
    allow_empty_pairs: bool = False
    bad_rows: Literal["fail", "skip"] = "fail"
    sha256: str | None = None
    downloads: str = "downloads"

    @property
    def columns(self) -> sources.ColumnNames:
        label_columns = tuple(name.strip() for name in self.label_columns or ())
        return sources.ColumnNames(
            *(self.text_column, self.text_pair_column, self.label_column, label_columns),
            *(self.weight_column, tuple(self.keep_columns)),
        )

    @property
    def table_format(self) -> tables.TableFormat:
        delimiter = tables.parse_delimiter(self.delimiter)
        return tables.TableFormat(self.encoding, delimiter, self.escape, self.quotes)


@dataclasses.dataclass(frozen=True)
class SourceRows:
    """What is read of a task's source."""

    rows: Sequence[AnyRow]
    bad_rows: int  # The number of those that are left out.
    label_type: str  # That of the options, or labels.SEVERAL; folders are classes, unless it says otherwise.
    label_form: str = ""  # How several labels were read, for people.


def find_argument_problems(options: SourceOptions, output: str | None) -> list[Problem]:
    """What is missing or wrong among the arguments of a preparation, before anything is read."""
    problems = [
        Problem(flag, "be given", "none", "See --help.")
        for flag, value in (("--task", options.task), ("--output", output))
        if not value
    ]
    spec = tasks.TASKS.get(options.task)
    if options.task and not spec:
        problems.append(Problem("--task", f"be one of {', '.join(sorted(tasks.TASKS))}", options.task))
    if gcs.is_gcs_path(options.downloads):
        problems.append(Problem("--downloads", "be a folder of this machine", options.downloads))
    if spec and spec.source and not options.source:
        problems.append(Problem("--source", f"name {spec.source}", "none"))
    if options.task == tasks.AX:
        advice = "scripts/glue.py predicts it with a model of mnli, for the submission."
        problems.append(Problem("--task", "be a data set with labels", options.task, advice))
    if spec and options.task != "csv":
        return problems + _find_foreign_options(options)
    default = sources.DEFAULT_COLUMNS.label
    given = None if options.label_column == default else options.label_column
    problems += label_sets.find_flag_problems(
        options.multi_label, options.label_type, given, options.label_delimiter, options.columns.labels
    )
    return problems + tables.find_format_problems(options.table_format)


def _find_foreign_options(options: SourceOptions) -> list[Problem]:
    """Those that are given and change nothing: of splits, columns and formats of tables, of labels that are fixed."""
    spec = tasks.TASKS[options.task]
    of_source = ("source", "sha256") if spec.source or spec.url else ()
    taken = {"task", "bad_rows", "downloads", *of_source, *(() if options.task in READERS else ("label_type",))}
    problems = []
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        value = tuple(value) if isinstance(value, list) else value
        if field.name in taken or value in (None, "", (), field.default):
            continue
        shown = ",".join(value) if isinstance(value, tuple) else "true" if value is True else str(value)
        problems.append(Problem(f"--{field.name}", f"be left out for --task={options.task}", shown))
    return problems


def local_source(task: str, source: str | None, sha256: str | None, downloads_folder: str) -> str:
    """The source as a local file or folder: downloaded from a URL, the task's own if `source` is None, or a bucket.

    Raises UserError if a file's SHA-256 is not `sha256`, or not the task's own where `sha256` is None.
    """
    spec = tasks.TASKS[task]
    source = source or spec.url
    assert source  # find_argument_problems requires it of a task that has no URL.
    if source.startswith(("https://", "http://")):
        sha256 = sha256 or (spec.sha256 if source == spec.url else None)
        return str(downloads.download_file(source, Path(downloads_folder), sha256))
    path = fs.local_copy(source)
    if sha256 and Path(path).is_file():
        downloads.check_sha256(Path(path), sha256)
    return path


def find_files(source: str) -> list[str]:
    """The paths that a source means: itself, or those that its pattern names, sorted.

    A path that exists is no pattern; in a bucket, only the last part may be one. Raises UserError if there are none.
    """
    url = source.startswith(("https://", "http://"))
    if url or not glob.has_magic(source) or fs.exists(source):
        return [source]
    if fs.in_bucket(source):
        folder, _, pattern = source.rpartition("/")
        found = [fs.join(folder, name) for name in fs.list_names(folder) if fnmatch.fnmatchcase(name, pattern)]
    else:
        found = sorted(path for path in glob.glob(source, recursive=True) if os.path.isfile(path))
    if not found:
        raise UserError(Problem("The source", "exist, or be a pattern of files that do", source))
    return found


def read_rows(options: SourceOptions) -> SourceRows:
    """The rows of a task's source, and of the files that --test_source and --validation_source name.

    Raises UserError if there are no rows, or bad rows and `bad_rows` is "fail", and what the readers of sources raise.
    """
    task, label_form = options.task, ""
    label_type: str = options.label_type
    bad_rows: list[str] = []
    store = TextStore()
    if task == "movie_snippets":
        rows = [store_row(row, store) for row in movie_reviews.read_movie_snippets(ratings=label_type == "number")]
    elif task in READERS:
        path = local_source(task, options.source, options.sha256, options.downloads)
        rows = [store_row(row, store) for row in READERS[task](path, bad_rows)]
        label_type = "class" if tasks.TASKS[task].labels else "number"
    else:
        rows, label_type, label_form = _read_own_rows(options, store, bad_rows)
    if options.bad_rows != "skip":
        problems = sources.find_bad_row_problems(options.source or task, bad_rows)
        if problems:
            raise UserError(*problems)
    if not rows:
        raise UserError(Problem(options.source or task, "hold rows", "none that can be used"))
    return SourceRows(rows, len(bad_rows), label_type, label_form)


@dataclasses.dataclass(frozen=True)
class _ReadFiles:
    """The rows of several tables and folders, and where each was read."""

    rows: list[StoredRow] = dataclasses.field(default_factory=list)
    lines: "array.array[int]" = dataclasses.field(default_factory=lambda: array.array("I"))  # A list would be larger.
    starts: list[int] = dataclasses.field(default_factory=list)  # Of each table or folder, the index of its first row.
    line_names: list[str] = dataclasses.field(default_factory=list)  # What is written before a line; "" for a folder.

    def file_of(self, index: int) -> int:
        """The number of the table or folder that a row is from."""
        return bisect.bisect(self.starts, index) - 1

    def place_of(self, index: int) -> str:
        """Where a row was read, for people."""
        line_name = self.line_names[self.file_of(index)]
        return f"{line_name} {self.lines[index]}" if line_name else str(self.rows[index].id)


def _read_own_rows(options: SourceOptions, store: TextStore, bad_rows: list[str]) -> tuple[list[StoredRow], str, str]:
    """(the rows of all files, the type of their labels, SourceRows.label_form).

    The others are appended to `bad_rows` as "place: reason".
    """
    read = _read_files(options, store, bad_rows)
    if options.multi_label:
        return _divide_labels(options, read, bad_rows)
    rows, label_type = read.rows, options.label_type
    if label_type == "auto" and "" in read.line_names:  # A folder is a class, whatever its name.
        label_type = "class"
    strays = set(labels.find_stray_labels([row.label for row in rows], label_type))
    for index in sorted(strays):
        advice = "--label_type=class makes every label a class"
        bad_rows.append(
            f"{read.place_of(index)}: the label {tables.shorten(rows[index].label)!r} in a column of numbers ({advice})"
        )
    if strays:
        rows = [row for index, row in enumerate(rows) if index not in strays]
    if labels.label_kind((row.label for row in rows), label_type) == "classification":
        rows = _name_equal_numbers(rows)
    return rows, label_type, ""


def _read_files(options: SourceOptions, store: TextStore, bad_rows: list[str]) -> _ReadFiles:
    read = _ReadFiles()
    files = _list_files(options)
    several = sum(map(len, files.values())) > 1
    for split, paths in files.items():
        records = 0
        for path in paths:
            local = local_source("csv", path, options.sha256 if split == "" else None, options.downloads)
            read.starts.append(len(read.rows))
            if os.path.isdir(local):
                read.line_names.append("")
                rows = _read_folder(options, local, split, bad_rows)
                read.rows.extend(store_row(row, store) for row in rows)
                read.lines.extend([0] * (len(read.rows) - len(read.lines)))
                continue
            unit = tables.record_unit(path)
            read.line_names.append(f"{os.path.basename(path)} {unit}" if several else unit)
            for line, row in sources.read_table(
                local,
                options.columns,
                split,
                table_format=options.table_format,
                missing_labels=options.missing_labels,
                allow_empty_pairs=options.allow_empty_pairs,
                several_labels=options.multi_label,
                first_id=records,
            ):
                records += 1
                if isinstance(row, Row):
                    read.rows.append(store_row(row, store))
                    read.lines.append(line)
                else:
                    bad_rows.append(f"{read.line_names[-1]} {line}: {row}")
    return read


def _divide_labels(options: SourceOptions, read: _ReadFiles, bad_rows: list[str]) -> tuple[list[StoredRow], str, str]:
    """_read_own_rows of several labels: cells become sets."""
    missing = {label.casefold() for label in options.missing_labels}
    cells = [(row.label, row.labels) for row in read.rows]
    files = [read.file_of(index) for index in range(len(read.rows))]
    delimiter = tables.parse_delimiter(options.label_delimiter)
    found, form = label_sets.divide_cells(cells, files, delimiter, options.label_column, missing)
    bad_rows += [f"{read.place_of(i)}: {names}" for i, names in enumerate(found) if not isinstance(names, tuple)]
    good = [(row, names) for row, names in zip(read.rows, found, strict=True) if isinstance(names, tuple)]
    sets, renamed = label_sets.name_equal_numbers([names for _, names in good])
    _warn_of_equal_numbers(renamed)
    if options.columns.labels:
        form = "one column of 0 and 1 for each"
    divided = [dataclasses.replace(row, label="", labels=names) for (row, _), names in zip(good, sets, strict=True)]
    return divided, labels.SEVERAL, form


def _list_files(options: SourceOptions) -> dict[str, list[str]]:
    """The paths of each split; "" is what is divided."""
    assert options.source  # find_argument_problems requires it.
    named = {"": options.source, "validation": options.validation_source, "test": options.test_source}
    files = {split: find_files(source) for split, source in named.items() if source}
    if options.sha256 and len(files[""]) > 1:
        raise UserError(Problem("--sha256", "be given for one file", f"{len(files[''])} files, {options.source}"))
    return files


def _read_folder(options: SourceOptions, folder: str, split: str, bad_rows: list[str]) -> Iterator[Row]:
    """The rows of a folder with a folder for each class."""
    columns = {
        "--text_pair_column": options.text_pair_column,
        "--weight_column": options.weight_column,
        "--keep_columns": ",".join(options.keep_columns),
        "--multi_label": "true" if options.multi_label else None,
    }
    problems = [
        Problem(flag, "be left out unless tables are read", f"{value} for {folder}, a folder")
        for flag, value in columns.items()
        if value
    ]
    if problems:
        raise UserError(*problems)
    for path, row in sources.read_class_folders(folder, split, encoding=options.encoding):
        if isinstance(row, str):
            bad_rows.append(f"{path}: {row}")
            continue
        other = {"test": options.test_source, "validation": options.validation_source}.get(row.split)
        if split == "" and other:
            received = f"{other}, and {row.split}/ in {folder}"
            raise UserError(Problem(f"--{row.split}_source", "be left out where the source has that split", received))
        yield row


def _warn_of_equal_numbers(names: Mapping[str, str]) -> None:
    renamed = [f"{label} is {name}" for label, name in names.items()]
    if renamed:  # Of versions, such as 3.1 and 3.10, this would be wrong.
        shown = ", ".join(renamed[:MAX_SHOWN_LABELS]) + (", ..." if len(renamed) > MAX_SHOWN_LABELS else "")
        _LOG.warning("labels that are equal numbers are one class: %s. Add a letter to those that are names.", shown)


def _name_equal_numbers(rows: list[StoredRow]) -> list[StoredRow]:
    names = labels.name_equal_numbers(row.label for row in rows)
    _warn_of_equal_numbers({label: name for label, name in names.items() if label != name})
    for index, row in enumerate(rows):
        if names[row.label] != row.label:
            rows[index] = dataclasses.replace(row, label=names[row.label])
    return rows
