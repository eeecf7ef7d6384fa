"""A classifier that takes token ids, exported as a file of LiteRT or ONNX: load and run it.

Needs NumPy and the runtime of the format, and nothing of the training.

`python -m trainer.export.token_classifier FOLDER INPUTS.npz LOGITS.npy` writes the logits of inputs: the export's
parity check runs it in a fresh process.
"""

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from trainer.errors import Problem, UserError
from trainer.storage import fs

DESCRIPTION_FILE = "classifier.json"
BATCH_SIZE = 16
OUTPUT = "logits"

# {input_word_ids, input_mask, input_type_ids}: int32 [B, S], or with windows [B, W, S], to logits: float32 [B, C].
Classify = Callable[[Mapping[str, np.ndarray]], np.ndarray]


def _open_litert(path: str) -> Classify:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=os.cpu_count())
    run = interpreter.get_signature_runner("serving_default")
    return lambda inputs: run(**inputs)[OUTPUT]


def _open_onnx(path: str) -> Classify:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run([OUTPUT], dict(inputs))[0]


# The suffix of a model's file -> what opens it.
RUNTIMES: dict[str, Callable[[str], Classify]] = {".tflite": _open_litert, ".onnx": _open_onnx}


def load_description(folder: str) -> dict[str, Any]:
    """The contents of classifier.json. Raises UserError if the folder has none."""
    path = fs.join(folder, DESCRIPTION_FILE)
    if not fs.exists(path):
        raise UserError(Problem("A classifier's folder", f"hold {DESCRIPTION_FILE}", folder))
    return fs.read_json(path)


def load_classifier(folder: str) -> Classify:
    """Load the classifier in a folder, local or in a bucket. Raises UserError if there is none."""
    local = fs.local_copy(folder)
    path = fs.join(local, load_description(local)["model"])
    return RUNTIMES[os.path.splitext(path)[1]](path)


def classify_rows(classify: Classify, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """The logits of any number of rows, BATCH_SIZE at a time: float32 [N, C]."""
    rows = len(next(iter(inputs.values())))
    batches = (
        {name: np.ascontiguousarray(value[start : start + BATCH_SIZE]) for name, value in inputs.items()}
        for start in range(0, rows, BATCH_SIZE)
    )
    return np.concatenate([np.array(classify(batch), np.float32) for batch in batches])


def main() -> None:
    folder, inputs, output = sys.argv[1:]
    with np.load(inputs) as stored:
        np.save(output, classify_rows(load_classifier(folder), dict(stored)))


if __name__ == "__main__":
    main()
