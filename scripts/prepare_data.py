"""Prepare a data set for training: splits, tokens, TFRecord shards, and dataset.json.

  python scripts/prepare_data.py --task=movie_snippets --encoder=minilm --output=data/movie_snippets
  python scripts/prepare_data.py --task=imdb --encoder=minilm --output=data/imdb [--source=aclImdb_v1.tar.gz|DIR|URL]
  python scripts/prepare_data.py --task=csv --source=FILE.csv|.tsv|.jsonl --text_column=... --label_column=... \\
      --encoder=minilm --output=data/mine [--text_pair_column=...] [--label_type=auto|class|number] [--test_source=FILE]
  python scripts/prepare_data.py --inspect=data/mine
"""

import time

from absl import flags

from trainer.data import labels, sources, task_rows, tasks
from trainer.errors import Problem, UsageError
from trainer.runtime import app, versions
from trainer.storage import preflight
from trainer.storage.preflight import PathUse

TASK = flags.DEFINE_enum("task", None, sorted(tasks.TASKS), "The data set to prepare.")
SOURCE = flags.DEFINE_string("source", None, "The file, folder or URL to read. Task imdb has a URL of its own.")
TEST_SOURCE = flags.DEFINE_string(
    "test_source", None, "The file with the test split, for task csv. Without it, 10 % of the source become test."
)
ENCODER = flags.DEFINE_string(
    "encoder", "minilm", "The encoder whose tokenizer is used: a name, a Hub handle or a folder."
)
PREPROCESS = flags.DEFINE_string(
    "preprocess",
    "",
    "The encoder's preprocessor, a Hub handle or a folder. Needed only if --encoder does not imply it.",
)
OUTPUT = flags.DEFINE_string("output", None, "The folder to write the data set to.")
TEXT = flags.DEFINE_string("text_column", "text", "The column with the text, for task csv.")
TEXT_PAIR = flags.DEFINE_string("text_pair_column", None, "The column with the second text of pairs, for task csv.")
LABEL = flags.DEFINE_string("label_column", "label", "The column with the label, for task csv.")
LABEL_TYPE = flags.DEFINE_enum(
    "label_type",
    "auto",
    labels.LABEL_TYPES,
    "Whether labels are classes or numbers to predict. With auto they are numbers if all are numbers, and some are no "
    f"integers or more than {labels.MAX_INTEGER_CLASSES} differ.",
)
QUOTES = flags.DEFINE_bool(
    "quotes",
    True,
    "Whether a field may be in quotes, for task csv. With --noquotes a quote is a character of the text.",
)
BAD_ROWS = flags.DEFINE_enum(
    "bad_rows",
    "fail",
    ["fail", "skip"],
    "What to do with rows that have another number of columns, no text, no label, or bytes that are not UTF-8: fail, "
    "or skip and count them.",
)
SEED = flags.DEFINE_integer("seed", 0, "The splits and their order depend on this number.")
SHA256 = flags.DEFINE_string(
    "sha256", None, "The SHA-256 that the source file must have. The URL of task imdb has one of its own."
)
DOWNLOADS = flags.DEFINE_string("downloads", "downloads", "The folder that a source which is a URL is downloaded to.")
INSPECT = flags.DEFINE_string("inspect", None, "Print what this prepared folder holds, and do nothing else.")


def check_flags() -> None:
    """Raises UsageError with everything that is wrong with the flags. Every bucket among the paths is checked."""
    problems: list[Problem] = []
    if not INSPECT.value:
        problems += task_rows.find_argument_problems(TASK.value, SOURCE.value, OUTPUT.value, DOWNLOADS.value)
    reads = [PathUse(f"--{flag.name}", flag.value) for flag in (SOURCE, TEST_SOURCE, ENCODER, PREPROCESS, INSPECT)]
    try:
        preflight.check_paths([*reads, PathUse("--output", OUTPUT.value, writes=True)])
    except UsageError as error:
        problems += error.problems
    if problems:
        raise UsageError(*problems)


def main(argv: list[str]) -> None:
    app.reject_arguments(argv)
    versions.check_installation()
    check_flags()
    from trainer.data import inspection, prepare
    from trainer.encoders import registry, saved_models

    if INSPECT.value:
        print(inspection.describe_data_set(INSPECT.value))
        return
    started = time.monotonic()
    folders = registry.resolve_encoder(ENCODER.value, need_preprocess=False)
    saved_models.load_encoder(folders)  # Before the preprocessor is looked for: what is no encoder has none.
    preprocess = registry.resolve_preprocess(ENCODER.value, PREPROCESS.value)
    prepare.prepare_task(
        TASK.value,
        SOURCE.value,
        test_source=TEST_SOURCE.value,
        columns=sources.ColumnNames(TEXT.value, TEXT_PAIR.value, LABEL.value),
        label_type=LABEL_TYPE.value,
        quotes=QUOTES.value,
        skip_bad_rows=BAD_ROWS.value == "skip",
        sha256=SHA256.value,
        downloads_folder=DOWNLOADS.value,
        encoder=ENCODER.value,
        preprocess=preprocess,
        output=OUTPUT.value,
        seed=SEED.value,
    )
    print(inspection.summarize_data_set(OUTPUT.value))
    print(f"prepared in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    app.run(main, __doc__)
