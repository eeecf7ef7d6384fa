"""Prepare a data set for training: splits, tokens, TFRecord shards, and dataset.json.

  python scripts/prepare_data.py --task=movie_snippets --encoder=minilm --output=data/movie_snippets
  python scripts/prepare_data.py --task=imdb --encoder=minilm --output=data/imdb [--source=aclImdb_v1.tar.gz|DIR|URL]
  python scripts/prepare_data.py --task=csv --source=FILE|PATTERN|FOLDER --text_column=... --label_column=... \\
      --encoder=minilm --output=data/mine [--text_pair_column=...] [--label_type=auto|class|number] \\
      [--validation_source=FILE] [--test_source=FILE] [--encoding=cp1252] [--delimiter=';'] [--escape='\\'] [--noquotes]
  python scripts/prepare_data.py --task=csv --source=FILE --multi_label [--label_delimiter=';' | --label_columns=a,b]
  python scripts/prepare_data.py --inspect=data/mine
"""

import time
from typing import Any

from absl import flags

from trainer import api
from trainer.data import labels, tasks
from trainer.runtime import app, versions
from trainer.storage import preflight
from trainer.storage.preflight import PathUse

TASK = flags.DEFINE_enum("task", None, sorted(tasks.TASKS), "The data set to prepare.")
SOURCE = flags.DEFINE_string(
    "source",
    None,
    "The file, folder or URL to read. Task imdb has a URL of its own. For a task of GLUE: its folder or .zip, as GLUE "
    "distributes it. For task csv: a .csv, .tsv, .jsonl, .json, "
    ".parquet or .xlsx file, also with .gz or as a .zip of one file; several, as a pattern in quotes such as "
    "'data/*.csv'; or a folder with a folder of text files for each class.",
)
flags.DEFINE_string(
    "test_source", None, "The source of the test split, for task csv. Without it, 10 % of --source become test."
)
flags.DEFINE_string(
    "validation_source",
    None,
    "The source of the validation split, for task csv. Without it, it is drawn from --source.",
)
ENCODER = flags.DEFINE_string("encoder", "minilm", "The encoder whose tokenizer is used: a name, a handle or a folder.")
PREPROCESS = flags.DEFINE_string(
    "preprocess",
    "",
    "The encoder's preprocessor, a handle or a folder. Needed only if the encoder has none and no vocabulary.",
)
MIRROR = flags.DEFINE_string(
    "encoders.mirror", "", "A folder in which handles are looked up before they are downloaded. See import_encoder.py."
)
OUTPUT = flags.DEFINE_string("output", None, "The folder to write the data set to.")
flags.DEFINE_string("text_column", "text", "The column with the text, for task csv.")
flags.DEFINE_string("text_pair_column", None, "The column with the second text of pairs, for task csv.")
flags.DEFINE_string("label_column", "label", "The column with the label, for task csv.")
flags.DEFINE_string(
    "weight_column", None, "The column with an example's weight in the loss, 0 or more, for task csv. Without it, 1."
)
flags.DEFINE_list(
    "keep_columns", [], "Columns that a run's report groups its results by, separated by commas, for task csv."
)
flags.DEFINE_enum(
    "label_type",
    "auto",
    labels.LABEL_TYPES,
    "Whether labels are classes or numbers to predict. With auto they are numbers if all are numbers, and some are not "
    f"whole, or more than {labels.MAX_INTEGER_CLASSES} differ and most of them occur once.",
)
flags.DEFINE_bool(
    "multi_label",
    False,
    "Whether a text may have several labels, or none, for task csv: a list in .jsonl, .json or .parquet, a cell with a "
    "delimiter elsewhere, or the columns of --label_columns.",
)
flags.DEFINE_string(
    "label_delimiter",
    None,
    "What separates the labels of a cell, with --multi_label. By default the first of | ; , that is in any cell; in a "
    "table with lists a string is one label.",
)
flags.DEFINE_list(
    "label_columns", [], "Columns of 0 and 1 (or true and false), one for each label, with --multi_label."
)
flags.DEFINE_list(
    "missing_labels",
    list(labels.MISSING_LABELS),
    "What counts as no label, in lower or upper case, for task csv. Leave a name out that is a class.",
)
flags.DEFINE_string(
    "encoding", None, "The encoding of files that are not UTF-8 and have no mark, such as cp1252, for task csv."
)
flags.DEFINE_string(
    "delimiter",
    None,
    "The character between columns, for task csv; \\t is a tab. By default it is a comma in .csv, a tab in .tsv, or "
    "what the header has.",
)
flags.DEFINE_string(
    "escape",
    None,
    "The character before a quote of the text, for task csv: a backslash, as some databases write. It is taken away.",
)
flags.DEFINE_bool(
    "quotes",
    None,
    "Whether a field may be in quotes, for task csv. With --noquotes a quote is a character of the text. By default "
    "fields may be in quotes in .csv, and not in .tsv.",
)
flags.DEFINE_bool("allow_empty_pairs", False, "Whether the second text of a pair may be empty, for task csv.")
flags.DEFINE_enum(
    "bad_rows",
    "fail",
    ["fail", "skip"],
    "What to do with rows that have another number of columns, no text, no label, or bytes that are not of the "
    "encoding: fail, or skip and count them.",
)
SEED = flags.DEFINE_integer("seed", 0, "The splits and their order depend on this number.")
flags.DEFINE_string(
    "sha256", None, "The SHA-256 that the source file must have. The URL of task imdb has one of its own."
)
flags.DEFINE_string("downloads", "downloads", "The folder that a source which is a URL is downloaded to.")
INSPECT = flags.DEFINE_string("inspect", None, "Print what this prepared folder holds, and do nothing else.")


def source_options() -> dict[str, Any]:
    """The flags of their names."""
    return {name: flags.FLAGS[name].value for name in api.PrepareOptions.__annotations__}


def main(argv: list[str]) -> None:
    app.reject_arguments(argv)
    if INSPECT.value:
        versions.check_installation()
        problems = app.normalize_path_flags("inspect")
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
        **source_options(),
    )
    print(data)
    print(f"prepared in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    app.run(main, __doc__)
