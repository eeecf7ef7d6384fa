"""The tables that predict.py writes: the input's columns and those of the predictions, as .csv, .tsv, .jsonl or .parquet."""

import csv
import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from trainer.errors import Problem, UserError
from trainer.export import prediction_outputs
from trainer.export.predict import Prediction
from trainer.export.prediction_inputs import InputSource, InputSummary
from trainer.export.prediction_outputs import Shown
from trainer.storage import fs

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
# Rows of a .parquet file that are in memory together.
ROW_GROUP_ROWS = 8192
# What a .tsv file has no place for: its fields are in no quotes, as preparation reads them.
_SEPARATORS = re.compile(r"[\t\r\n]")


def suffix_of(path: str) -> str:
    return os.path.splitext(path.lower())[1]


def find_output_problem(path: str) -> Problem | None:
    """The problem of a path whose suffix names no format that can be written; None if it does."""
    return None if suffix_of(path) in SUFFIXES else Problem("--output", f"end in {', '.join(SUFFIXES)}", path)


def check_separable(source: InputSource, columns: Sequence[str]) -> None:
    """Raises UserError if the records hold tabs or line ends, which a .tsv file has no place for."""
    advice = "Write a .csv file."
    for name in columns:
        if _SEPARATORS.search(name):
            raise UserError(
                Problem("A column of a .tsv file", "have no tab or line end in its name", repr(name), advice)
            )
    for number, record in source.read():
        for name, value in record.items() if isinstance(record, dict) else ():
            if isinstance(value, str) and _SEPARATORS.search(value):
                received = f"one in {name!r} of {source.unit} {number}"
                raise UserError(Problem("A value in a .tsv file", "have no tab or line end", received, advice))


def write_predictions(
    path: str, source: InputSource, summary: InputSummary, predictions: Iterator[Prediction], shown: Shown
) -> None:
    """Write the source's columns and those of the predictions, in order, to a file that appears when it is complete.

    Raises UserError if the source has columns of the predictions' names, or what the format has no place for.
    """
    columns, suffix = list(summary.types), suffix_of(path)
    added = prediction_outputs.added_columns(shown, columns, source.name)
    if suffix == ".tsv":
        check_separable(source, [*columns, *added])
    rows = ((p.record, prediction_outputs.added_values(p, shown, len(added))) for p in predictions)
    with fs.new_file(path) as local:
        if suffix == ".jsonl":
            _write_json_lines(local, added, rows)
        elif suffix == ".parquet":
            _write_parquet(local, source, summary, added, rows)
        else:
            _write_separated(local, columns, added, rows, "\t" if suffix == ".tsv" else ",")


# The record of an input, and the values of the columns that are added.
_Row = tuple[dict[str, Any], list[Any]]


def _write_json_lines(path: str, added: Iterable[str], rows: Iterable[_Row]) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for record, values in rows:
            numbers = (float(value) if isinstance(value, np.float32) else value for value in values)
            file.write(prediction_outputs.dump_json(record | dict(zip(added, numbers, strict=True))) + "\n")


def _write_separated(
    path: str, columns: Sequence[str], added: Iterable[str], rows: Iterable[_Row], delimiter: str
) -> None:
    quoting, quotechar = (csv.QUOTE_NONE, None) if delimiter == "\t" else (csv.QUOTE_MINIMAL, '"')
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=quoting, quotechar=quotechar, lineterminator="\n")
        writer.writerow([*columns, *added])
        for record, values in rows:
            writer.writerow([*(_cell(record.get(name)) for name in columns), *map(_cell, values)])


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


def _common_type(types: frozenset[type]) -> type:
    """The type of a column whose values have these types."""
    if len(types) == 1:
        return next(iter(types))
    return float if types == {int, float} else str


def _convert(value: Any, kind: type) -> Any:
    if value is None:
        return None
    return _cell(value) if kind is str else kind(value)
