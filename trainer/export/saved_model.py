"""A text-in SavedModel: tokenise, the same truncation as in training, encoder, scores, class names.

It is written beside its place, loaded in a fresh process from a moved copy, and takes its place only
when that process gives the scores that the job gives.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tf_keras

from trainer import child_process
from trainer.data import tokenization
from trainer.storage import fs

# Largest difference of a score, in the job and from the export, that counts as equal.
SCORE_TOLERANCE = 1e-4
# Seconds for the fresh process: it imports TensorFlow, loads the model and scores 100 texts.
SCORING_TIMEOUT_S = 600


def build_serving_module(
    model: tf_keras.Model,
    tokenizer: tokenization.Tokenizer,
    *,
    texts: int,
    labels: Sequence[str],
    seq_length: int,
    truncation: str,
) -> tuple[tf.Module, tf.types.experimental.ConcreteFunction]:
    """The module to save and its serving signature.

    text: string [batch] (and text_pair for pairs) -> scores: float32 [batch, classes], logits of the
    same shape, and for classification labels: string [batch], the winning class's name.
    """
    # A variable, since a SavedModel gives back no plain tensors: predict.class_names reads it.
    names = tf.Variable(list(labels), trainable=False) if labels else None

    def serve(*columns: tf.Tensor) -> dict[str, tf.Tensor]:
        tokens = [tokenizer.tokenize(column) for column in columns]
        inputs = tokenization.pack_inputs(
            tokens[0], tokens[1] if texts == 2 else None, tokenizer.special, seq_length, truncation
        )
        logits = model(inputs, training=False)
        if names is None:
            return {"scores": tf.identity(logits), "logits": logits}
        return {"scores": tf.nn.softmax(logits), "logits": logits, "labels": tf.gather(names, tf.argmax(logits, 1))}

    signature = [tf.TensorSpec([None], tf.string, name=name) for name in ("text", "text_pair")[:texts]]
    function = tf.function(serve, input_signature=signature)
    module = tf.Module()
    # Its vocabulary becomes an asset. The rest of a preprocessor packs, with an operator (TFText>RoundRobinTrim) that
    # TensorFlow Serving does not have.
    module.tokenizer = tokenizer.saved_model.tokenize
    module.model_variables = model.variables  # without Keras's own metadata: plain TensorFlow serves it
    module.names = names
    module.serve = function
    return module, function.get_concrete_function()


def scores_in_fresh_process(folder: str, rows: Sequence[tuple[str, ...]]) -> np.ndarray:
    """float32 [rows, classes]: what the SavedModel in `folder` says in a process of its own.

    Raises ValueError with the process's last words if it fails, or takes longer than TIMEOUT.
    """
    try:
        done = subprocess.run(
            child_process.command("trainer.export.predict", folder),
            input=json.dumps(rows),
            capture_output=True,
            text=True,
            timeout=SCORING_TIMEOUT_S,
            env=child_process.environment(CUDA_VISIBLE_DEVICES="-1"),  # This process holds the accelerators.
        )
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"The export must load and score within {SCORING_TIMEOUT_S} s in a fresh process. Received: no answer."
        ) from None
    if done.returncode:
        raise ValueError(f"The export must load in a fresh process. Received: {done.stderr.strip()[-800:]}")
    scores: np.ndarray = np.array(json.loads(done.stdout.splitlines()[-1]), np.float32)
    return scores


def write_saved_model(
    module: tf.Module,
    signature: tf.types.experimental.ConcreteFunction,
    output: str,
    rows: Sequence[tuple[str, ...]],
    scores: np.ndarray,
) -> float:
    """Save to `output`, after the parity check: a moved copy must give `scores` for the texts in `rows`.

    Returns the largest difference. Raises ValueError, and leaves what was at `output`, if it is above TOLERANCE.
    """
    with tempfile.TemporaryDirectory() as temporary:
        # For a bucket it is written here: TensorFlow's uploads are held against no checksum, those of storage are.
        beside = os.path.join(temporary, "written") if fs.in_bucket(output) else output.rstrip("/")
        partial = f"{beside}.partial"
        fs.remove(partial)
        tf.saved_model.save(module, partial, signatures={"serving_default": signature})
        moved = os.path.join(temporary, "moved")
        fs.copy_folder(partial, moved)
        difference = float(np.max(np.abs(scores_in_fresh_process(moved, rows) - scores)))
        if not difference <= SCORE_TOLERANCE:
            fs.remove(partial)
            raise ValueError(
                f"The export's scores must be within {SCORE_TOLERANCE} of the job's. Received: a difference of "
                f"{difference:.2e} on {len(rows)} validation texts. Nothing was exported."
            )
        fs.replace_folder(partial, output)
    return difference
