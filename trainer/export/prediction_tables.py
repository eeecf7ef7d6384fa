"""The tables that predict.py writes: .csv, .tsv, .jsonl or .parquet, with the input's columns and the predictions."""

import csv
import itertools
import json
import logging
import os
import re
import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from trainer.data import label_sets
from trainer.errors import Problem, UserError
from trainer.export import prediction_outputs
from trainer.export.predict import ScoredInput
from trainer.export.prediction_inputs import MAX_REPORTED, InputSource, InputSummary
from trainer.export.prediction_outputs import Shown
from trainer.storage import fs

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
# Rows of a .parquet file that are in memory together.
ROW_GROUP_ROWS = 8192
_LOG = logging.getLogger(__name__)
_SEPARATORS = re.compile(r"[\t\r\n]")
_Row = tuple[dict[str, Any], list[Any]]  # The record of an input, and the values of the columns that are added.


def suffix_of(path: str) -> str:
    return os.path.splitext(path.lower())[1]


def find_output_problems(path: str, line_format: str | None) -> list[Problem]:
    """What is wrong with --output; `line_format` is --format if it is given."""
    if suffix_of(path) not in SUFFIXES:
        return [Problem("--output", f"end in {', '.join(SUFFIXES)}", path)]
    if line_format == "jsonl" and suffix_of(path) != ".jsonl":
        return [Problem("--format", "be left out with --output, whose suffix decides", f"{line_format} and {path}")]
    return []


def write_predictions(
    path: str, source: InputSource, summary: InputSummary, predictions: Iterator[ScoredInput], shown: Shown
) -> None:
    """Write the source's columns and those of the predictions, in order, to a file that appears when it is complete.

    Raises UserError if the source has columns of the predictions' names, or what the format has no place for.
    """
    columns, suffix = list(summary.types), suffix_of(path)
    added = prediction_outputs.added_columns(shown, columns, source.name)
    if suffix == ".tsv" and source.rereadable:  # Before anything is computed.
        _check_separable(shown.names)
        for _, record in source.read():
            if isinstance(record, dict):
                _check_separable(record.values())
    rows = ((p.record, prediction_outputs.added_values(p, shown, len(added))) for p in predictions)
    with fs.new_file(path) as local:
        if suffix == ".jsonl":
            _write_json_lines(local, added, rows)
        elif suffix == ".parquet":
            _write_parquet(local, source, summary, added, rows)
        else:
            cells = ((record, [_join_labels(value, shown) for value in values]) for record, values in rows)
            _write_separated(local, [*columns, *added], cells, tabs=suffix == ".tsv")
    shown_columns = ", ".join(itertools.islice(added, MAX_REPORTED)) + ", ..." * (len(added) > MAX_REPORTED)
    _LOG.info("%s has the columns of %s and %s.", path, source.name, shown_columns)


def _write_json_lines(path: str, added: Iterable[str], rows: Iterable[_Row]) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for record, values in rows:
            numbers = (float(value) if isinstance(value, np.float32) else value for value in values)
            file.write(prediction_outputs.dump_json(record | dict(zip(added, numbers, strict=True))) + "\n")


def _write_separated(path: str, columns: Sequence[str], rows: Iterable[_Row], *, tabs: bool) -> None:
    """A .tsv file, whose fields are in no quotes, as preparation reads it, or a .csv file."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        if tabs:
            writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None, lineterminator="\n")
            _check_separable(columns)
        else:
            # Only with this end of a row a field with a lone \r is put in quotes, before Python 3.13.
            unix_rows = types.SimpleNamespace(write=lambda row: file.write(row.removesuffix("\r\n") + "\n"))
            writer = csv.writer(unix_rows, lineterminator="\r\n")
        writer.writerow(columns)
        for record, values in rows:
            if tabs:
                _check_separable((*record.values(), *values))
            of_input = columns[: len(columns) - len(values)]
            writer.writerow([_cell(value) for value in (*map(record.get, of_input), *values)])


def _join_labels(value: Any, shown: Shown) -> Any:
    """The labels of a prediction as a cell that prepare_data.py reads; another value as it is."""
    return label_sets.join_labels(value, shown.names) if isinstance(value, list) else value


def _check_separable(values: Iterable[Any]) -> None:
    """Raises UserError for a value with a tab or a line end, which a .tsv file has no place for."""
    for value in values:
        if isinstance(value, str) and _SEPARATORS.search(value):
            required = "have no tab or line end to be written to a .tsv file"
            raise UserError(Problem("Every value", required, repr(value[:60]), "Write a .csv file."))


def _cell(value: Any) -> str:
    """A value as text. Nothing and NaN are empty, as pandas writes them."""
    if value is None or value != value:
        return ""
    structured = isinstance(value, bool | list | dict)
    return json.dumps(value, ensure_ascii=False, default=str) if structured else str(value)


def _write_parquet(
    path: str, source: InputSource, summary: InputSummary, added: dict[str, type], rows: Iterator[_Row]
) -> None:
    """Columns of a .parquet file keep their types; those of others are numbers or Booleans if all values are."""
    import pyarrow
    import pyarrow.parquet

    arrow_types = {
        bool: pyarrow.bool_(),
        int: pyarrow.int64(),
        float: pyarrow.float64(),
        str: pyarrow.string(),
        np.float32: pyarrow.float32(),
        list: pyarrow.list_(pyarrow.string()),
    }
    if source.name.lower().endswith(".parquet"):
        read = pyarrow.parquet.ParquetFile(source.name, pre_buffer=False)
        schema = read.schema_arrow
        bases = (pyarrow.Table.from_batches([batch], schema) for batch in read.iter_batches(ROW_GROUP_ROWS))
        chunks = ((base, list(itertools.islice(rows, base.num_rows))) for base in bases)
    else:
        kinds = {name: _common_type(types) for name, types in summary.types.items()}
        schema = pyarrow.schema([(name, arrow_types[kind]) for name, kind in kinds.items()])

        def to_table(records: Sequence[dict[str, Any]]) -> pyarrow.Table:
            columns = {name: [_convert(record.get(name), kind) for record in records] for name, kind in kinds.items()}
            return pyarrow.table(columns, schema)

        groups = iter(lambda: list(itertools.islice(rows, ROW_GROUP_ROWS)), [])
        chunks = ((to_table([record for record, _ in group]), group) for group in groups)
    complete = pyarrow.schema([*schema, *((name, arrow_types[kind]) for name, kind in added.items())], schema.metadata)
    with pyarrow.parquet.ParquetWriter(path, complete) as writer:
        for base, group in chunks:
            for name, values in zip(added, zip(*(values for _, values in group), strict=True), strict=True):
                base = base.append_column(complete.field(name), pyarrow.array(values, complete.field(name).type))
            writer.write_table(base)
    next(rows, None)  # The predictions end with a warning of blank texts.


def _common_type(types: frozenset[type]) -> type:
    """The type of a column whose values have these types."""
    if len(types) == 1:
        return next(iter(types))
    return float if types == {int, float} else str


def _convert(value: Any, kind: type) -> Any:
    if value is None:
        return None
    return _cell(value) if kind is str else kind(value)
