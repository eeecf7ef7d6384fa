"""Score texts with an exported SavedModel. Needs TensorFlow and tensorflow-text, nothing of the training.

`python -m trainer.predict FOLDER` reads a JSON list of texts, or of pairs, and prints their scores as
a JSON list: the export's own check, in a process of its own.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from trainer.storage import fs

BATCH_SIZE = 32

Signature = Callable[..., dict[str, Any]]


def load_export(folder: str) -> tuple[Any, Signature]:
    """(the SavedModel, which must be kept alive; its serving signature). Raises ValueError if there is none."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  registers the tokenizers' operators

    if not fs.exists(fs.join(folder, "saved_model.pb")):
        raise ValueError(
            f"--model must name an exported SavedModel, such as MODEL_DIR/export. Received: {folder}, which has no "
            "saved_model.pb."
        )
    saved = tf.saved_model.load(fs.local_copy(folder))
    return saved, saved.signatures["serving_default"]


def input_names(signature: Any) -> list[str]:
    """["text"], or ["text", "text_pair"]."""
    return sorted(signature.structured_input_signature[1])


def class_names(saved: Any) -> list[str]:
    """The classes in the order of the scores; empty for regression."""
    names = getattr(saved, "names", None)
    return [] if names is None else [name.decode() for name in names.numpy()]


def score_texts(signature: Any, rows: Sequence[Sequence[str]]) -> Iterator[np.ndarray]:
    """float32 [classes] for each row of one text or two, in order."""
    import tensorflow as tf

    names = input_names(signature)
    for start in range(0, len(rows), BATCH_SIZE):
        columns = zip(*rows[start : start + BATCH_SIZE], strict=True)
        yield from signature(**{name: tf.constant(column) for name, column in zip(names, columns, strict=True)})[
            "scores"
        ].numpy()


def main() -> None:
    _, signature = load_export(sys.argv[1])
    rows = json.load(sys.stdin)
    print(json.dumps([[float(value) for value in scores] for scores in score_texts(signature, rows)]))


if __name__ == "__main__":
    main()
