"""Score texts with an exported SavedModel. Needs TensorFlow and tensorflow-text, and nothing of the training.

`python -m trainer.export.predict FOLDER` reads a JSON list of rows from standard input, each a list of one text or
two, and prints a JSON list of their scores. The export's parity check runs it in a fresh process.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from trainer.errors import Problem, UserError
from trainer.storage import fs

BATCH_SIZE = 32

Signature = Callable[..., dict[str, Any]]


def load_export(folder: str) -> tuple[Any, Signature]:
    """Load an export and return (the SavedModel, its serving signature). The signature needs the SavedModel alive.

    Raises UserError if the folder holds no SavedModel.
    """
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  Registers the tokenizers' operators.

    if not fs.exists(fs.join(folder, "saved_model.pb")):
        raise UserError(
            Problem(
                "--model",
                "name an exported SavedModel, such as MODEL_DIR/export",
                f"{folder}, which has no saved_model.pb",
            )
        )
    saved = tf.saved_model.load(fs.tensorflow_path(folder))
    return saved, saved.signatures["serving_default"]


def input_names(signature: Any) -> list[str]:
    """Return ["text"], or ["text", "text_pair"] for a model of pairs."""
    return sorted(signature.structured_input_signature[1])


def class_names(saved: Any) -> list[str]:
    """Return the names of the classes in the order of the scores; an empty list for regression."""
    names = getattr(saved, "names", None)
    return [] if names is None else [name.decode() for name in names.numpy()]


def read_texts(path: str) -> list[str]:
    """Return the lines of a UTF-8 file, or of standard input for "-", without the blank ones."""
    if path == "-":
        lines = sys.stdin.read().splitlines()
    else:
        with open(fs.local_copy(path), encoding="utf-8") as file:
            lines = file.read().splitlines()
    return [line for line in lines if line.strip()]


def split_texts(signature: Any, texts: Sequence[str]) -> list[list[str]]:
    """Return a row of the model's inputs for each text; for a model of pairs, the text split at its tab.

    Raises UserError for the first text that is not a pair if the model needs pairs.
    """
    if len(input_names(signature)) == 1:
        return [[text] for text in texts]
    rows = [text.split("\t") for text in texts]
    for text, row in zip(texts, rows, strict=True):
        if len(row) != 2:
            raise UserError(
                Problem("Every line or argument", "be two texts separated by a tab for this model of pairs", repr(text))
            )
    return rows


def score_texts(signature: Any, rows: Sequence[Sequence[str]]) -> Iterator[np.ndarray]:
    """Yield the scores of each row, float32 [classes], in order. A row holds one text, or two for a model of pairs."""
    import tensorflow as tf

    names = input_names(signature)
    for start in range(0, len(rows), BATCH_SIZE):
        columns = zip(*rows[start : start + BATCH_SIZE], strict=True)
        inputs = {name: tf.constant(column) for name, column in zip(names, columns, strict=True)}
        yield from signature(**inputs)["scores"].numpy()


def format_prediction(text: str, scores: np.ndarray, names: Sequence[str], *, as_json: bool) -> str:
    """Return one line for a text: a JSON object, or the best class, its probability and the text.

    `names` are the classes of `scores`, float32 [classes]. Without names, `scores` is the number of a regression.
    """
    best = int(scores.argmax())
    if as_json and names:
        probabilities = dict(zip(names, map(float, scores), strict=True))
        return json.dumps({"text": text, "label": names[best], "scores": probabilities}, ensure_ascii=False)
    if as_json:
        return json.dumps({"text": text, "score": float(scores[0])}, ensure_ascii=False)
    if names:
        return f"{names[best]:<{max(map(len, names))}}  {scores[best]:.4f}  {text}"
    return f"{scores[0]:>9.4f}  {text}"


def main() -> None:
    _, signature = load_export(sys.argv[1])
    rows = json.load(sys.stdin)
    print(json.dumps([[float(value) for value in scores] for scores in score_texts(signature, rows)]))


if __name__ == "__main__":
    main()
