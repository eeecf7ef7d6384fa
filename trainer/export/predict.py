"""Score texts with an exported SavedModel. Needs TensorFlow and tensorflow-text, and nothing of the training.

`python -m trainer.export.predict FOLDER` reads a JSON list of rows from standard input, each a list of one text or
two, and prints a JSON list of {"scores": [number, ...], "label": ScoredInput.label, "labels": ScoredInput.labels}.
The export's parity check runs it in a fresh process, and glue.predictions.
"""

import dataclasses
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from trainer.errors import Problem, UserError
from trainer.export import prediction_inputs
from trainer.export.prediction_inputs import MAX_REPORTED, InputSource
from trainer.runtime import garbage
from trainer.storage import fs

# A batch has BATCH_SIZE texts, and more if they are short: up to MAX_BATCH_SIZE that have BATCH_BYTES together.
BATCH_SIZE = 32
MAX_BATCH_SIZE = 256
BATCH_BYTES = BATCH_SIZE * 2048  # Some 15,000 tokens: what 32 texts of 500 tokens take.
# Texts are read ahead, to be sorted by length: as many as this, or records of so many characters. The first windows are
# smaller, from BATCH_SIZE texts on, so that the first predictions come soon.
MAX_WINDOW_TEXTS = 4096
MAX_WINDOW_CHARACTERS = 1 << 20
# The inputs of an export's signature: of one text, or of a pair.
INPUT_NAMES = (["text"], ["text", "text_pair"])

Signature = Callable[..., dict[str, Any]]
_Answer = tuple[np.ndarray, str | None, tuple[int, ...] | None]  # Scores, ScoredInput.label, ScoredInput.labels.
_NumberedTexts = tuple[int, dict[str, Any], list[str]]  # The number of an input, its columns, its texts.
_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ScoredInput:
    """An input with its scores."""

    number: int  # The input's, from 1.
    record: dict[str, Any]  # The input's columns.
    texts: list[str]  # One, or the two of a pair.
    scores: np.ndarray | None  # float32 [classes], [1] for regression; None if the texts are blank.
    label: str | None = None  # The class that the export gives the texts; None of blank texts and other kinds.
    labels: tuple[int, ...] | None = None  # Of several labels the indexes of those that the export gives the text.


def load_export(folder: str) -> tuple[Any, Signature]:
    """Load an export and return (the SavedModel, its serving signature). The signature needs the SavedModel alive.

    Raises UserError if the folder holds no SavedModel, or one that cannot be loaded here or takes no text.
    """
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  Registers the tokenizers' operators.

    required = "name an exported SavedModel, such as MODEL_DIR/export"
    if not fs.exists(fs.join(folder, "saved_model.pb")):
        raise UserError(Problem("--model", required, f"{folder}, which has no saved_model.pb"))
    local = fs.tensorflow_path(folder)
    if missing := find_missing_operators(local):
        advice = "Load it where they are registered: docs/serving.md shows how for those of TensorFlow Text."
        received = f"one with {', '.join(missing)}"
        raise UserError(Problem(folder, "hold only operators of TensorFlow and TensorFlow Text", received, advice))
    saved = tf.saved_model.load(local)
    signature = saved.signatures.get("serving_default")
    if signature is None or input_names(signature) not in INPUT_NAMES or "scores" not in signature.structured_outputs:
        raise UserError(Problem("--model", required, f"{folder}, a SavedModel that takes no text or returns no scores"))
    return saved, signature


def find_missing_operators(folder: str) -> list[str]:
    """The operators in a SavedModel, a local folder, that are not registered in this process, sorted."""
    from tensorflow.core.protobuf import saved_model_pb2
    from tensorflow.python.framework import op_def_registry

    with open(fs.join(folder, "saved_model.pb"), "rb") as file:
        saved = saved_model_pb2.SavedModel.FromString(file.read())
    graphs = [meta.graph_def for meta in saved.meta_graphs]
    bodies = [body for graph in graphs for body in (graph.node, *(f.node_def for f in graph.library.function))]
    functions = {function.signature.name for graph in graphs for function in graph.library.function}
    names = {node.op for body in bodies for node in body} - functions
    return sorted(name for name in names if op_def_registry.get(name) is None)


def input_names(signature: Any) -> list[str]:
    """Return ["text"], or ["text", "text_pair"] for a model of pairs."""
    return sorted(signature.structured_input_signature[1])


def class_names(saved: Any) -> list[str]:
    """Return the names of the classes in the order of the scores; an empty list for regression."""
    names = getattr(saved, "names", None)
    return [] if names is None else [name.decode() for name in names.numpy()]


def has_several_labels(signature: Any) -> bool:
    """Whether a text may have several labels: the output `labels` is [batch, classes] then, and not [batch]."""
    labels = signature.structured_outputs.get("labels")
    return labels is not None and labels.shape.rank == 2


def predict_texts(signature: Any, rows: Sequence[Sequence[str]]) -> Iterator[_Answer]:
    """Yield the scores, ScoredInput.label and ScoredInput.labels of each row, in order.

    A row holds one text, or two for a model of pairs. All are computed before the first is yielded, in batches of texts
    of similar length, which need little padding.
    """
    sizes = [sum(len(text.encode()) for text in row) for row in rows]
    longest_first = sorted(range(len(rows)), key=lambda row: -sizes[row])
    answers: dict[int, _Answer] = {}
    while len(answers) < len(rows):
        longest = sizes[longest_first[len(answers)]]
        count = min(max(BATCH_BYTES // max(longest, 1), BATCH_SIZE), MAX_BATCH_SIZE)
        batch = longest_first[len(answers) : len(answers) + count]
        answers.update(zip(batch, _predict_batch(signature, [rows[row] for row in batch]), strict=True))
    yield from (answers[row] for row in range(len(rows)))


def _predict_batch(signature: Any, rows: Sequence[Sequence[str]]) -> Iterator[_Answer]:
    import tensorflow as tf

    columns = map(tf.constant, zip(*rows, strict=True))
    outputs = signature(**dict(zip(input_names(signature), columns, strict=True)))
    scores = outputs["scores"].numpy()
    if has_several_labels(signature):
        for of_text, labels in zip(scores, outputs["labels"].numpy(), strict=True):
            yield of_text, None, tuple(np.flatnonzero(labels != b"").tolist())
    elif "labels" in outputs:
        for of_text, label in zip(scores, outputs["labels"].numpy(), strict=True):
            yield of_text, label.decode(), None
    else:
        yield from ((of_text, None, None) for of_text in scores)


def predict_source(signature: Any, source: InputSource) -> Iterator[ScoredInput]:
    """Yield a prediction for each input of the source, in order. Not more than a window of them is in memory.

    An input of blank texts has no scores, since the model would make some up for no text; a warning counts them. Raises
    UserError for an input that cannot be read, after the predictions of those before it, and if there are none.
    """
    rows, blanks = 0, 0
    first_blanks: list[int] = []
    for window in _read_windows(source):
        predicted = predict_texts(signature, [texts for _, _, texts in window if not is_blank(texts)])
        for number, record, texts in window:
            scores, label, labels = (None, None, None) if is_blank(texts) else next(predicted)
            yield ScoredInput(number, record, texts, scores, label, labels)
        rows += len(window)
        blank = [number for number, _, texts in window if is_blank(texts)]
        blanks += len(blank)
        first_blanks = (first_blanks + blank)[:MAX_REPORTED]
    if not rows:
        raise prediction_inputs.no_input_error(source)
    if blanks:
        first = ", ".join(map(str, first_blanks)) + (", ..." if blanks > len(first_blanks) else "")
        _LOG.warning("%d of %d texts are blank and have no prediction: %s %s.", blanks, rows, source.unit, first)


def _read_windows(source: InputSource) -> Iterator[list[_NumberedTexts]]:
    """The inputs of the source in order, as many at a time as are sorted together."""
    window: list[_NumberedTexts] = []
    characters, most = 0, BATCH_SIZE
    for number, record in source.read():
        if isinstance(record, str):
            yield window
            raise prediction_inputs.unreadable_error(source, [(number, record)], 1)
        window.append((number, record, prediction_inputs.texts_of(record, source)))
        characters += sum(len(value) for value in record.values() if isinstance(value, str))
        if len(window) >= most or characters >= MAX_WINDOW_CHARACTERS:
            yield window
            window, characters, most = [], 0, min(2 * most, MAX_WINDOW_TEXTS)
    yield window


def is_blank(texts: Sequence[str]) -> bool:
    """Whether there is nothing but white space in any of an input's texts."""
    return not any(text.strip() for text in texts)


def main() -> None:
    garbage.collect_rarely()
    import tensorflow  # noqa: F401  Seconds, while the export is written: the rows come when it is complete.
    import tensorflow_text  # noqa: F401

    rows = json.load(sys.stdin)
    _, signature = load_export(sys.argv[1])
    predicted = predict_texts(signature, rows)
    answers = [
        {"scores": scores.astype(float).tolist(), "label": label, "labels": labels}
        for scores, label, labels in predicted
    ]
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
