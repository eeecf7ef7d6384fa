"""Prepare a data set for training: splits, tokens, TFRecord shards, and dataset.json.

  python scripts/prepare_data.py --task=movie_snippets --encoder=minilm --output=data/movie_snippets
  python scripts/prepare_data.py --task=imdb --encoder=minilm --output=data/imdb [--source=aclImdb_v1.tar.gz|DIR|URL]
  python scripts/prepare_data.py --task=csv --source=FILE.csv|.tsv|.jsonl --text_column=... --label_column=... \\
      --encoder=minilm --output=data/mine [--text_pair_column=...] [--label_type=auto|class|number] [--test_source=FILE]
  python scripts/prepare_data.py --inspect=data/mine
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from trainer.data import tasks
from trainer.errors import UsageError
from trainer.runtime import app, versions
from trainer.storage import fs, preflight
from trainer.storage.preflight import PathUse

if TYPE_CHECKING:
    from trainer.data.sources import BadRows, Row

TASK = flags.DEFINE_enum("task", None, sorted(tasks.TASKS), "which data set")
SOURCE = flags.DEFINE_string("source", None, "the file, folder or URL to read; imdb has a URL of its own")
TEST_SOURCE = flags.DEFINE_string(
    "test_source", None, "csv: the file that is the test split; without it, 10 %% of the source"
)
ENCODER = flags.DEFINE_string(
    "encoder", "minilm", "the encoder whose tokenizer to use: a name, a Hub handle or a folder"
)
PREPROCESS = flags.DEFINE_string(
    "preprocess", "", "its preprocessor, where none goes with it: a Hub handle or a folder"
)
OUTPUT = flags.DEFINE_string("output", None, "the folder to write")
TEXT = flags.DEFINE_string("text_column", "text", "csv: the column with the text")
TEXT_PAIR = flags.DEFINE_string("text_pair_column", None, "csv: the column with the second text of a pair")
LABEL = flags.DEFINE_string("label_column", "label", "csv: the column with the label")
LABEL_TYPE = flags.DEFINE_enum(
    "label_type",
    "auto",
    ["auto", "class", "number"],
    "classes, or a number to predict; auto: numbers if any is not whole or more than 20 differ",
)
QUOTES = flags.DEFINE_bool("quotes", True, "csv: a field may be quoted; --noquotes takes quotes as they stand")
BAD_ROWS = flags.DEFINE_enum(
    "bad_rows",
    "fail",
    ["fail", "skip"],
    "rows of another width, without text or label, or not in UTF-8: stop, or leave them out and count them",
)
SEED = flags.DEFINE_integer("seed", 0, "of the splits")
SHA256 = flags.DEFINE_string("sha256", None, "the hash that the source must have; the imdb URL has one of its own")
DOWNLOADS = flags.DEFINE_string("downloads", "downloads", "where a source that is a URL is kept")
INSPECT = flags.DEFINE_string("inspect", None, "print what this prepared folder holds, and end")


def local_source(task: str, source: str | None) -> str:
    """The source as a local file or folder: downloaded if it is a URL, its hash checked if there is one to check."""
    from trainer.data import downloads

    spec = tasks.TASKS[task]
    source = source or spec.url
    if not source:
        raise UsageError(f"--task={task} needs --source=FILE. Received: none.")
    if source.startswith(("https://", "http://")):
        sha256 = SHA256.value or (spec.sha256 if source == spec.url else None)
        return str(downloads.download_file(source, Path(DOWNLOADS.value), sha256))
    source = fs.local_copy(source)
    if SHA256.value and Path(source).is_file():
        downloads.check_sha256(Path(source), SHA256.value)
    return source


def rows_of(task: str, bad: "BadRows") -> Iterator["Row"]:
    from trainer.data import sources

    if task == "movie_snippets":
        return sources.read_movie_snippets(ratings=LABEL_TYPE.value == "number")
    source = local_source(task, SOURCE.value)
    if task == "imdb":
        return sources.read_imdb(source, bad)
    columns = sources.ColumnNames(TEXT.value, TEXT_PAIR.value, LABEL.value)
    rows = list(sources.read_table(source, columns, "", bad, quotes=QUOTES.value))
    if TEST_SOURCE.value:
        rows += sources.read_table(fs.local_copy(TEST_SOURCE.value), columns, "test", bad, quotes=QUOTES.value)
    return iter(rows)


def main(argv: list[str]) -> None:
    app.reject_positional_arguments(argv)
    versions.check_installation()
    reads = [PathUse(f"--{flag.name}", flag.value) for flag in (SOURCE, TEST_SOURCE, ENCODER, PREPROCESS, INSPECT)]
    preflight.check_paths([*reads, PathUse("--output", OUTPUT.value, writes=True)])
    if INSPECT.value:
        from trainer.data import inspection

        print(inspection.describe_data_set(INSPECT.value))
        return
    missing = [f"--{name}" for name, flag in (("task", TASK), ("output", OUTPUT)) if not flag.value]
    if missing:
        raise UsageError(f"{' and '.join(missing)} must be given. Received: none. See --help.")
    if fs.in_bucket(DOWNLOADS.value):
        raise UsageError(f"--downloads must be a folder of this machine. Received: {DOWNLOADS.value}.")
    if TASK.value == "csv" and not SOURCE.value:
        raise UsageError("--task=csv needs --source=FILE.csv, .tsv or .jsonl. Received: none.")

    from trainer.data import inspection, prepare, sources
    from trainer.encoders import registry

    started = time.monotonic()
    folders = registry.resolve_encoder(ENCODER.value, preprocess=PREPROCESS.value)
    bad = sources.BadRows()
    rows = list(rows_of(TASK.value, bad))
    if BAD_ROWS.value == "fail":
        bad.refuse(SOURCE.value or TASK.value)
    if not rows:
        raise ValueError(f"{SOURCE.value} must hold rows. Received: none that can be used.")
    number = LABEL_TYPE.value == "number"
    prepare.prepare_data_set(
        rows,
        task=TASK.value,
        label_type=LABEL_TYPE.value if TASK.value == "csv" else ("number" if number else "class"),
        labels=None if number else tasks.TASKS[TASK.value].labels,
        encoder=ENCODER.value,
        preprocess=folders.preprocess,
        output=OUTPUT.value,
        seed=SEED.value,
        skipped=len(bad.found),
    )
    print(inspection.summarize_data_set(OUTPUT.value))
    print(f"prepared in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    app.run(main, __doc__)
