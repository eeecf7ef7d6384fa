"""Prepare a data set for training: splits, tokens, TFRecord shards, and dataset.json.

Examples:
  python scripts/prepare_data.py --task=movie_snippets --output=data/movie_snippets
  python scripts/prepare_data.py --task=imdb --source=aclImdb_v1.tar.gz --output=data/imdb
  python scripts/prepare_data.py --task=csv --source=reviews.csv --output=data/mine \\
      --text_column=review --label_column=stars --label_type=number
  python scripts/prepare_data.py --task=csv --source='data/*.jsonl' --output=data/topics \\
      --multi_label --test_source=test.jsonl
  python scripts/prepare_data.py --inspect=data/mine

docs/data.md describes the files that are read, and how their labels are understood.
"""

import time
from typing import Any

from absl import flags

from trainer import api
from trainer.data import labels, tasks
from trainer.runtime import app, versions
from trainer.storage import preflight
from trainer.storage.preflight import PathUse

TASK = flags.DEFINE_enum(
    "task", None, sorted(tasks.TASKS), "The data set to prepare; csv is one of your own. Required without --inspect."
)
SOURCE = flags.DEFINE_string(
    "source",
    None,
    "The file, folder or URL to read. Task imdb has a URL of its own. For a task of GLUE: its folder or .zip, as GLUE "
    "distributes it. For task csv: a .csv, .tsv, .jsonl, .json, .parquet or .xlsx file, also with .gz or as a .zip of "
    "one file; several, as a pattern in quotes such as 'data/*.csv'; or a folder with a folder of text files for each "
    "class.",
)
OUTPUT = flags.DEFINE_string("output", None, "The folder to write the data set to. Required without --inspect.")
INSPECT = flags.DEFINE_string("inspect", None, "Print what this prepared folder holds, and do nothing else.")
SEED = flags.DEFINE_integer("seed", 0, "The seed of the splits and their order.")
flags.DEFINE_string(
    "sha256", None, "The SHA-256 that the source file must have. Default: for the URL of task imdb, its own."
)
flags.DEFINE_string("downloads", "downloads", "The folder that a source which is a URL is downloaded to.")

ENCODER = flags.DEFINE_string("encoder", "minilm", "The encoder whose tokenizer is used: a name, a handle or a folder.")
PREPROCESS = flags.DEFINE_string(
    "preprocess",
    "",
    "The encoder's preprocessor, a handle or a folder. Needed only if the encoder has none and no vocabulary.",
)
MIRROR = flags.DEFINE_string(
    "encoders.mirror", "", "A folder in which handles are looked up before they are downloaded. See import_encoder.py."
)

VALIDATION_SOURCE = flags.DEFINE_string(
    "validation_source", None, "The source of the validation split. Default: a part of --source."
)
flags.DEFINE_string("test_source", None, "The source of the test split. Default: 10 % of --source.")
flags.DEFINE_string("text_column", "text", "The column with the text.")
flags.DEFINE_string("text_pair_column", None, "The column with the second text of pairs.")
flags.DEFINE_string("label_column", "label", "The column with the label.")
flags.DEFINE_string(
    "weight_column", None, "The column with an example's weight in the loss, 0 or more. Default: 1 for all."
)
flags.DEFINE_list("keep_columns", [], "The columns that a run's report groups its results by.")
flags.DEFINE_bool("allow_empty_pairs", False, "Allow the second text of a pair to be empty.")

LABEL_TYPE = flags.DEFINE_enum(
    "label_type",
    "auto",
    labels.LABEL_TYPES,
    "Whether labels are classes or numbers to predict. With auto they are numbers if all are numbers, and some are not "
    f"whole, or more than {labels.MAX_INTEGER_CLASSES} differ and most of them occur once.",
)
flags.DEFINE_bool(
    "multi_label",
    False,
    "Allow a text to have several labels, or none: a list in .jsonl, .json or .parquet, a cell with a delimiter "
    "elsewhere, or the columns of --label_columns.",
)
flags.DEFINE_string(
    "label_delimiter",
    None,
    "What separates the labels of a cell, with --multi_label. In a table with lists, a string is one label. Default: "
    "the first of | ; , that is in any cell.",
)
flags.DEFINE_list(
    "label_columns", [], "The columns of 0 and 1 (or true and false), one for each label, with --multi_label."
)
flags.DEFINE_list(
    "missing_labels",
    list(labels.MISSING_LABELS),
    "What counts as no label, in lower or upper case. Leave a name out that is a class.",
)

ENCODING = flags.DEFINE_string(
    "encoding", None, "The encoding of files that are not UTF-8 and have no mark, such as cp1252. Default: UTF-8."
)
flags.DEFINE_string(
    "delimiter",
    None,
    "The character between columns; \\t is a tab. Default: a comma in .csv, a tab in .tsv, or what the header has.",
)
flags.DEFINE_string(
    "escape", None, "The character before a quote of the text: a backslash, as some databases write. It is taken away."
)
flags.DEFINE_bool(
    "quotes",
    None,
    "Read fields in quotes. With --noquotes a quote is a character of the text. Default: true for .csv, false for "
    ".tsv.",
)
flags.DEFINE_enum(
    "bad_rows",
    "fail",
    ["fail", "skip"],
    "What to do with rows that have another number of columns, no text, no label, or bytes that are not of the "
    "encoding: fail, or skip and count them.",
)
HEADINGS = {
    TASK.name: "The data set",
    ENCODER.name: "The encoder",
    VALIDATION_SOURCE.name: "Splits and columns of --task=csv",
    LABEL_TYPE.name: "Labels of --task=csv",
    ENCODING.name: "Files of --task=csv",
}


def source_options() -> dict[str, Any]:
    """The flags of their names."""
    return {name: flags.FLAGS[name].value for name in api.PrepareOptions.__annotations__}


def main(argv: list[str]) -> None:
    problems = app.find_argument_problems(argv)
    if INSPECT.value:
        versions.check_installation()
        problems += app.normalize_path_flags("inspect")
        preflight.check_paths([PathUse("--inspect", INSPECT.value)], problems=problems)
        from trainer.data import inspection

        print(inspection.describe_data_set(INSPECT.value))
        return
    started = time.monotonic()
    data = api.prepare(
        SOURCE.value,
        OUTPUT.value or "",
        task=TASK.value or "",
        encoder=ENCODER.value,
        preprocess=PREPROCESS.value,
        mirror=MIRROR.value,
        seed=SEED.value,
        problems=problems,
        **source_options(),
    )
    print(data)
    print(f"prepared in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    app.run(main, __doc__, HEADINGS)
