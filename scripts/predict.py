"""Score texts with an exported model.

Examples:
  python scripts/predict.py --model=runs/mine/export "an amazing movie!" "It was terrible."
  python scripts/predict.py --model=runs/mine/export --input=texts.txt --format=jsonl
  cat texts.txt | python scripts/predict.py --model=runs/mine/export
  python scripts/predict.py --model=runs/mine/export --input=reviews.csv --output=scored.csv

For a model of pairs, a tab separates the two texts of a line or an argument, and --text_pair_column names the second
column of a table. A text that begins with - comes after --. The results are in the order of the inputs.
"""

import sys

import tqdm
from absl import flags

from trainer import api
from trainer.data import tables
from trainer.errors import Problem, UsageError, UserError
from trainer.export import predict, prediction_inputs, prediction_outputs, prediction_tables
from trainer.export.prediction_inputs import InputSource
from trainer.export.prediction_outputs import Shown
from trainer.runtime import app, versions
from trainer.storage import fs, preflight
from trainer.storage.preflight import PathUse

MODEL = flags.DEFINE_string("model", None, "The folder of the exported SavedModel, MODEL_DIR/export.", required=True)
INPUT = flags.DEFINE_string(
    "input",
    None,
    f"A table ({', '.join(tables.SUFFIXES)}, also with .gz, or one in a .zip), or any other file with one text per "
    "line. Local or gs://. Standard input is read if this is - or if no texts are given.",
)
TEXT = flags.DEFINE_string("text_column", "text", "The column of a table with the text.")
TEXT_PAIR = flags.DEFINE_string("text_pair_column", None, "The column of a table with the second text of pairs.")
ENCODING = flags.DEFINE_string(
    "encoding",
    None,
    "The encoding of the input, such as cp1252. Default: UTF-8, or that of the mark which it begins with.",
)
DELIMITER = flags.DEFINE_string(
    "delimiter",
    None,
    "The character between the columns of a table; \\t is a tab. Default: a comma in .csv, a tab in .tsv, or what the "
    "header has.",
)
ESCAPE = flags.DEFINE_string("escape", None, "The character before a quote of the text in a .csv or .tsv table.")
QUOTES = flags.DEFINE_bool("quotes", None, "Read fields of a table in quotes. Default: true for .csv, false for .tsv.")
OUTPUT = flags.DEFINE_string(
    "output",
    None,
    f"The table to write ({', '.join(prediction_tables.SUFFIXES)}), local or gs://: the columns of the input, and "
    "label (labels, where a text may have several) and score_CLASS, or score for regression. A blank text has none. "
    "The table appears when it is complete.",
)
FORMAT = flags.DEFINE_enum(
    "format",
    "table",
    ["table", "jsonl"],
    "What is printed without --output: a table for people, or one JSON object per line.",
)
TOP_K = flags.DEFINE_integer("top_k", None, "The number of likeliest classes to show with their scores.", lower_bound=1)
LINE_NUMBERS = flags.DEFINE_bool("line_numbers", False, "Show the line, row or argument that each text is of.")


def check_flags(texts: list[str], found: list[Problem]) -> None:
    """Raises UsageError with what was found before, and every problem of the flags and of the paths that they name."""
    problems = [*found, *app.normalize_path_flags("model", "input", "output")]
    if texts and INPUT.value and not found:  # A flag that is misspelled is no text.
        problems.append(
            Problem("--input", "be left out when texts are given as arguments", f"--input={INPUT.value} and a text")
        )
    for flag in (TEXT, TEXT_PAIR, DELIMITER, ESCAPE, QUOTES):
        if flag.present and not is_table():
            required = f"come with a table as --input, {', '.join(tables.SUFFIXES)}"
            problems.append(Problem(f"--{flag.name}", required, INPUT.value or "no --input"))
    if OUTPUT.value:
        problems += prediction_tables.find_output_problems(OUTPUT.value, FORMAT.value if FORMAT.present else None)
    problems += tables.find_format_problems(table_format())
    paths = [PathUse("--model", MODEL.value), PathUse("--input", INPUT.value)]
    preflight.check_paths([*paths, PathUse("--output", OUTPUT.value, writes=True, is_file=True)], problems=problems)


def is_table() -> bool:
    return bool(INPUT.value) and tables.is_table(INPUT.value)


def table_format() -> tables.TableFormat:
    delimiter = tables.parse_delimiter(DELIMITER.value)
    return tables.TableFormat(ENCODING.value, delimiter, ESCAPE.value, QUOTES.value)


def local_input() -> str:
    """A local path to the input, or "-" for standard input. Raises UserError if it is no file."""
    path = INPUT.value or "-"
    if path == "-":
        return path
    if not fs.exists(path) or fs.is_folder(path):
        received = f"{path}, which {'is a folder' if fs.exists(path) else 'does not exist'}"
        raise UserError(Problem("--input", "name a file", received))
    return fs.local_copy(path)


def check_model(source: InputSource, classifier: api.Classifier) -> None:
    """Raises UsageError if the flags do not suit the model."""
    problems = []
    if len(classifier.inputs) > len(source.text_columns):
        problems.append(Problem("--text_pair_column", "name the second text for this model of pairs", "none"))
    if len(classifier.inputs) < len(source.text_columns):
        problems.append(Problem("--text_pair_column", "be left out for this model of one text", TEXT_PAIR.value))
    if TOP_K.value and not classifier.labels:
        problems.append(Problem("--top_k", "be left out for this model, which predicts a number", str(TOP_K.value)))
    if problems:
        raise UsageError(*problems)


def main(argv: list[str]) -> None:
    versions.check_installation()
    texts = app.text_arguments(argv)
    check_flags(texts, app.find_argument_problems(argv, texts=True))
    local = local_input()
    if is_table():  # What is wrong with it is known before TensorFlow is loaded.
        columns = (TEXT.value, TEXT_PAIR.value) if TEXT_PAIR.value else (TEXT.value,)
        source = prediction_inputs.table_source(local, columns, table_format())
        if OUTPUT.value:
            prediction_inputs.check_columns(source, tables.column_names(local, table_format()))
        summary = prediction_inputs.inspect_source(source)
    classifier = api.load(MODEL.value)
    if not is_table():
        if texts:
            source = prediction_inputs.argument_source(texts, classifier.inputs)
        else:
            source = prediction_inputs.line_source(local, classifier.inputs, ENCODING.value)
        summary = prediction_inputs.inspect_source(source)
    check_model(source, classifier)

    shown = Shown(classifier.labels, TOP_K.value, LINE_NUMBERS.value, classifier.several_labels)
    format_line = prediction_outputs.format_json if FORMAT.value == "jsonl" else prediction_outputs.format_row
    predictions = iter(
        tqdm.tqdm(
            predict.predict_source(classifier.signature, source),
            total=summary.rows,
            desc="predicting",
            unit=" texts",
            # Only on a terminal, and not between predictions that are printed there.
            disable=None if OUTPUT.value or not sys.stdout.isatty() else True,
        )
    )
    if OUTPUT.value:
        prediction_tables.write_predictions(OUTPUT.value, source, summary, predictions, shown)
    else:
        for prediction in predictions:
            print(format_line(prediction, shown))


if __name__ == "__main__":
    app.run(main, __doc__, {MODEL.name: "Input", OUTPUT.name: "Output"})
