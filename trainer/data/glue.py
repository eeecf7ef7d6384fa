"""The tasks of GLUE, read from its own files: a folder or a .zip of a task, or of all of them.

The files are TSV in UTF-8, without quoting: a quote is a character of the text. Columns are found by the header's
names; CoLA's train and dev have no header. GLUE's dev is the test split here, since its test has no labels: that is
read by `read_unlabeled`, for the submission. The files: https://gluebenchmark.com/tasks
"""

import dataclasses
import io
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence

from trainer.data import labels, tables, task_folders, tasks
from trainer.data.sources import Row
from trainer.data.task_folders import TaskFolder
from trainer.errors import Problem, UserError

SCORE_RANGE = (0.0, 5.0)  # Of STS-B.


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where a task's files are, and which of their columns are read."""

    folders: tuple[str, ...]  # The names of its folder in glue_data/ and of its archive.
    texts: tuple[str, ...]  # The columns of one text, or of two.
    label: str  # The column of the label.
    unlabeled: dict[str, str]  # The name of a file of the submission -> the file that it predicts.
    index: str = "index"  # The column of `unlabeled` that the submission repeats.
    dev: str = "dev.tsv"  # The test split.


_SENTENCES = ("sentence1", "sentence2")
LAYOUTS = {
    "cola": Layout(("CoLA",), ("sentence",), "label", {"CoLA": "test.tsv"}),
    "sst2": Layout(("SST-2", "SST"), ("sentence",), "label", {"SST-2": "test.tsv"}),
    "mrpc": Layout(("MRPC",), ("#1 String", "#2 String"), "Quality", {"MRPC": "test.tsv"}),
    "qqp": Layout(("QQP", "QQP-clean"), ("question1", "question2"), "is_duplicate", {"QQP": "test.tsv"}, index="id"),
    "stsb": Layout(("STS-B", "STS"), _SENTENCES, "score", {"STS-B": "test.tsv"}),
    "mnli": Layout(
        *(("MNLI",), _SENTENCES, "gold_label", {"MNLI-m": "test_matched.tsv", "MNLI-mm": "test_mismatched.tsv"}),
        dev="dev_matched.tsv",
    ),
    "qnli": Layout(("QNLI", "QNLIv2"), ("question", "sentence"), "label", {"QNLI": "test.tsv"}),
    "rte": Layout(("RTE",), _SENTENCES, "label", {"RTE": "test.tsv"}),
    "wnli": Layout(("WNLI",), _SENTENCES, "label", {"WNLI": "test.tsv"}),
    "ax": Layout(("diagnostic", "AX"), _SENTENCES, "", {"AX": "diagnostic.tsv"}),
}
DEV_MISMATCHED = "dev_mismatched.tsv"  # Of MNLI: other genres than those of train.

# Of train and dev, which have no header.
_COLA_COLUMNS = ("source", "label", "mark", "sentence")
# MRPC as Microsoft distributes it: GLUE's dev are the pairs of train that the list has.
_MSR_TRAIN, _MSR_TEST, _MSR_DEV_IDS = "msr_paraphrase_train.txt", "msr_paraphrase_test.txt", "dev_ids.tsv"
_MSR_IDS = ("#1 ID", "#2 ID")
# A file's name in glue_data/ -> its name where it is downloaded from.
OTHER_NAMES = {"diagnostic.tsv": "AX.tsv", _MSR_DEV_IDS: "mrpc_dev_ids.tsv"}

_Record = tuple[int, dict[str, str] | str]  # A line's number, and its values by column or why it cannot be used.


@dataclasses.dataclass(frozen=True)
class Unlabeled:
    """A file whose labels are not public."""

    indexes: tuple[str, ...]  # As the submission repeats them.
    texts: tuple[tuple[str, ...], ...]  # Of each row, one or two.


def read_rows(source: str, bad_rows: list[str], task: str) -> list[Row]:
    """The rows of train, whose split is "", and of dev, whose split is "test". Labels are those of tasks.TASKS.

    A row's id is its number in its file, from 0. Rows that cannot be used are appended to `bad_rows`, each as
    "file line: reason". Raises UserError if the files of the task are not in the source, or lack a column.
    """
    folder, layout = find_folder(source, task), LAYOUTS[task]
    if "train.tsv" not in folder.names and _MSR_TRAIN in folder.names:
        return _read_msr_rows(folder, bad_rows)
    rows = _read_labeled(folder, task, "train.tsv", lambda record: "", bad_rows)
    return rows + _read_labeled(folder, task, layout.dev, lambda record: "test", bad_rows)


def read_mismatched(source: str) -> list[Row]:
    """The rows of MNLI's dev of other genres than those of train. Raises what read_rows does, and for bad rows."""
    bad_rows: list[str] = []
    rows = _read_labeled(find_folder(source, "mnli"), "mnli", DEV_MISMATCHED, lambda record: "test", bad_rows)
    if bad_rows:
        raise UserError(Problem(f"Every row of {DEV_MISMATCHED}", "have its texts and a label", bad_rows[0]))
    return rows


def read_unlabeled(source: str, task: str, name: str) -> Unlabeled:
    """The file that is predicted for the file `name` of the submission.

    Columns after those of the header are left out, and empty texts are kept: every row needs a prediction. Raises
    UserError for a row without them, and what read_rows does.
    """
    folder, layout = find_folder(source, task), LAYOUTS[task]
    file, index = _name_in(folder, layout.unlabeled[name]), layout.index
    msr = file not in folder.names and _MSR_TEST in folder.names
    file = _MSR_TEST if msr else file
    columns = layout.texts if msr else (index, *layout.texts)
    indexes, texts = [], []
    for count, (number, record) in enumerate(_read_records(folder, file, columns, longer=True)):
        if isinstance(record, str):
            raise UserError(Problem(f"{source}, {file} line {number}", "have its columns", record))
        indexes.append(str(count) if msr else record[index])
        texts.append(tuple(record[column] for column in layout.texts))
    return Unlabeled(tuple(indexes), tuple(texts))


def find_folder(source: str, task: str) -> TaskFolder:
    """The folder of a task in a source. Raises what task_folders.find_folder does."""
    layout = LAYOUTS[task]
    expected = ["train.tsv", *([_MSR_TRAIN] if task == "mrpc" else [])]
    if task == tasks.AX:
        expected = [name for file in layout.unlabeled.values() for name in (file, OTHER_NAMES[file])]
    others = {name for each in LAYOUTS.values() if each is not layout for name in each.folders}
    # Some archives of CoLA and SST-2 have the files that GLUE's were made from, too.
    return task_folders.find_folder(source, expected, layout.folders, {*others, "original"})


def _name_in(folder: TaskFolder, name: str) -> str:
    return name if name in folder.names else OTHER_NAMES.get(name, name)


def _read_lines(folder: TaskFolder, name: str) -> Iterator[tuple[int, list[str]]]:
    """The number and the fields of each line that is not blank. Only \\n and \\r\\n end a line."""
    with task_folders.open_file(folder, name) as file:
        # Bytes that are not of UTF-8 become lone surrogates.
        stream = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="\n")
        for number, line in enumerate(stream, 1):
            fields = line.removesuffix("\n").removesuffix("\r").split("\t")
            if fields != [""]:
                yield number, fields


def _read_records(
    folder: TaskFolder, name: str, required: Sequence[str], default: Sequence[str] = (), *, longer: bool = False
) -> Iterator[_Record]:
    """The values of the columns `required` in each line; `default` are the columns of a file without a header.

    `longer` allows more columns than the header has. Raises UserError if the header lacks some of them.
    """
    lines = _read_lines(folder, name)
    first = next(lines, None)
    if first is None:
        raise UserError(Problem(f"{folder.source}, {name}", "hold rows", "none"))
    columns = list(map(str.strip, first[1]))
    if default and not set(required) <= set(columns):
        columns = list(default)
        lines = itertools.chain([first], lines)
    if missing := [column for column in required if column not in columns]:
        received = f"a file with {', '.join(map(repr, columns))}"
        raise UserError(
            *(Problem(f"{folder.source}, {name}", f"have the column {column!r}", received) for column in missing)
        )
    indexes = [columns.index(column) for column in required]
    for number, fields in lines:
        enough = len(fields) > max(indexes) if longer else len(fields) == len(columns)
        if not enough:
            yield number, f"{len(fields)} columns, not {len(columns)}"
            continue
        record = {column: fields[index] for column, index in zip(required, indexes, strict=True)}
        undecoded = [column for column, value in record.items() if tables.find_undecoded(column, value)]
        yield number, f"bytes in {undecoded[0]!r} that are not UTF-8" if undecoded else record


def _read_labeled(
    folder: TaskFolder,
    task: str,
    name: str,
    split_of: Callable[[dict[str, str]], str],
    bad_rows: list[str],
    other_columns: Sequence[str] = (),
) -> list[Row]:
    """The rows of a file with labels. `split_of` takes their records, which have `other_columns` too."""
    layout = LAYOUTS[task]
    default = _COLA_COLUMNS if task == "cola" else ()
    rows = []
    records = _read_records(folder, name, (*layout.texts, layout.label, *other_columns), default)
    for id_, (number, record) in enumerate(records):
        row = record if isinstance(record, str) else _row_of(record, task, id_, split_of(record))
        if isinstance(row, str):
            bad_rows.append(f"{name} line {number}: {row}")
        else:
            rows.append(row)
    return rows


def _read_msr_rows(folder: TaskFolder, bad_rows: list[str]) -> list[Row]:
    """MRPC's rows in Microsoft's file: test where its pair of ids is in GLUE's list."""
    dev = {tuple(fields[:2]) for _, fields in _read_lines(folder, _name_in(folder, _MSR_DEV_IDS))}

    def split_of(record: dict[str, str]) -> str:
        return "test" if tuple(record[column] for column in _MSR_IDS) in dev else ""

    rows = _read_labeled(folder, "mrpc", _MSR_TRAIN, split_of, bad_rows, _MSR_IDS)
    if not any(row.split for row in rows):
        raise UserError(Problem(f"{folder.source}, {_MSR_DEV_IDS}", f"list pairs of {_MSR_TRAIN}", "none of them"))
    return rows


def _row_of(record: dict[str, str], task: str, id_: int, split: str) -> Row | str:
    """A row, or why it cannot be used."""
    layout = LAYOUTS[task]
    if empty := [column for column in layout.texts if not record[column].strip()]:
        return f"an empty text in {empty[0]!r}"
    label, names = record[layout.label].strip(), tasks.TASKS[task].labels
    if names is None:
        low, high = SCORE_RANGE
        if not labels.is_number(label) or not low <= float(label) <= high:
            return f"the label {label!r}, not a number from {low:g} to {high:g}"
    else:
        numbers = {str(number): name for number, name in enumerate(names)}
        if label not in names and label not in numbers:
            return f"the label {label!r}, none of {', '.join(names)}"
        label = label if label in names else numbers[label]
    texts = [record[column] for column in layout.texts]
    return Row(id_, texts[0], texts[1] if len(texts) > 1 else None, sys.intern(label), split)
