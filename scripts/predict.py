"""Score texts with an exported model.

  python scripts/predict.py --model=runs/quickstart/export "this is such an amazing movie!" "It was terrible..."
  python scripts/predict.py --model=DIR --input=FILE [--format=jsonl]     one text per line
  ... | python scripts/predict.py --model=DIR                             one text per line of standard input

For a model of pairs, a tab separates the two texts of a line or an argument.
"""

from absl import flags

from trainer.errors import Problem, UsageError
from trainer.runtime import app, versions
from trainer.storage import preflight
from trainer.storage.preflight import PathUse

MODEL = flags.DEFINE_string("model", None, "Folder of the exported SavedModel, MODEL_DIR/export.", required=True)
INPUT = flags.DEFINE_string(
    "input",
    None,
    "UTF-8 file with one text per line, local or gs://. Standard input is read if this is - or if no texts are given.",
)
FORMAT = flags.DEFINE_enum(
    "format", "table", ["table", "jsonl"], "Print a table for people, or one JSON object per line."
)


def check_flags(texts: list[str]) -> None:
    """Raises UsageError with every problem of the flags and of the paths that they name."""
    problems = app.normalize_path_flags("model", "input")
    if texts and INPUT.value:
        problems.append(
            Problem("--input", "be left out when texts are given as arguments", f"--input={INPUT.value} and a text")
        )
    try:
        preflight.check_paths([PathUse("--model", MODEL.value), PathUse("--input", INPUT.value)])
    except UsageError as error:
        problems += error.problems
    if problems:
        raise UsageError(*problems)


def main(argv: list[str]) -> None:
    app.reject_arguments(argv, texts=True)
    versions.check_installation()
    texts = argv[1:]
    check_flags(texts)
    from trainer.export import predict

    texts = texts or predict.read_texts(INPUT.value or "-")
    if not texts:
        raise UsageError(
            Problem("At least one text", "be given as an argument, in --input or on standard input", "none")
        )
    saved, signature = predict.load_export(MODEL.value)
    rows, names = predict.split_texts(signature, texts), predict.class_names(saved)
    for text, scores in zip(texts, predict.score_texts(signature, rows), strict=True):
        print(predict.format_prediction(text, scores, names, as_json=FORMAT.value == "jsonl"))


if __name__ == "__main__":
    app.run(main, __doc__)
