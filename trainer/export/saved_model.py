"""Export a SavedModel that takes text: tokenization, the truncation of training, encoder, scores and class names.

It is written under a temporary name and replaces an older export only after the parity check: a fresh process loads a
moved copy and computes the same scores as the job.
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
from trainer.data import label_scale, tokenization
from trainer.data.windows import Windows, pack_windows
from trainer.encoders import fused_layers
from trainer.encoders.window_pooling import pool_ragged_windows
from trainer.errors import Problem, UserError
from trainer.storage import fs

# The parity check accepts this absolute difference between a score of the job and one of the export, of numbers in
# units of their standard deviation.
SCORE_TOLERANCE = 1e-4
# The fresh process imports TensorFlow, loads the model and scores 100 texts.
SCORING_TIMEOUT_S = 600
# A failed child's standard error may be megabytes long; its end has the cause.
MAX_ERROR_CHARACTERS = 800


def build_serving_module(
    model: tf_keras.Model,
    tokenizer: tokenization.Tokenizer,
    *,
    texts: int,
    labels: Sequence[str],
    seq_length: int,
    truncation: str,
    windows: Windows | None = None,
    window_pooling: str = "mean",
    scale: label_scale.LabelScale | None = None,
    temperature: float = 1.0,
    threshold: tuple[int, float] | None = None,
    thresholds: np.ndarray | None = None,
) -> tuple[tf.Module, tf.types.experimental.ConcreteFunction]:
    """Return the module to save and its serving signature.

    `texts` is the number of inputs, 1 or 2; `labels` are the class names, none for regression. The signature takes
    text: string [batch] (and text_pair: string [batch]) and returns scores: float32 [batch, classes], logits: float32
    [batch, classes], and for classification labels: string [batch], the name of the likeliest class. For regression,
    scores and logits are the value, float32 [batch, 1], in the label's own units: with a `scale`, the model's outputs
    are standardized ones.

    The scores are the softmax of the logits divided by `temperature`. A `threshold` (index, score) between two classes
    makes labels the class of the index where its score is above that, and the other one elsewhere. With `thresholds`,
    float32 [classes], a text has several labels: scores are sigmoids, and labels are string [batch, classes], in each
    column the class's name if its score is above its threshold, or else "". The module has all of these as variables,
    so that they can be read, and set without training.
    """
    # predict.class_names reads this. It is a variable because a loaded SavedModel does not expose plain tensors.
    names = tf.Variable(list(labels), trainable=False) if labels else None
    divisor = tf.Variable(temperature, trainable=False, dtype=tf.float32) if labels else None
    positive, least = threshold or (0, 0.5)
    limit = tf.Variable(least, trainable=False, dtype=tf.float32) if threshold else None
    limits = None if thresholds is None else tf.Variable(thresholds, trainable=False, dtype=tf.float32)

    def serve(*columns: tf.Tensor) -> dict[str, tf.Tensor]:
        with fused_layers.use_plain_layers():  # Not every server has XLA.
            outputs = serve_texts(*(_one_at_least(column) for column in columns))
        return {name: output[: tf.shape(columns[0])[0]] for name, output in outputs.items()}

    def serve_texts(*columns: tf.Tensor) -> dict[str, tf.Tensor]:
        tokens = [tokenizer.tokenize(column) for column in columns]
        if windows:
            inputs, counts = pack_windows(tokens[0], tokenizer.special, seq_length, windows)
            logits = pool_ragged_windows(model, inputs, counts, window_pooling)
        else:
            inputs = tokenization.pack_inputs(
                tokens[0], tokens[1] if texts == 2 else None, tokenizer.special, seq_length, truncation
            )
            logits = model(inputs, training=False)
        if scale:
            logits = logits * scale.deviation + scale.mean
        if names is None:
            return {"scores": tf.identity(logits), "logits": logits}
        if limits is not None:
            scores = tf.sigmoid(logits / divisor)
            return {"scores": scores, "logits": logits, "labels": tf.where(scores > limits, names, "")}
        scores = tf.nn.softmax(logits / divisor)
        chosen = tf.argmax(logits, 1)
        if limit is not None:
            chosen = tf.where(scores[:, positive] > limit, positive, 1 - positive)
        return {"scores": scores, "logits": logits, "labels": tf.gather(names, chosen)}

    signature = [tf.TensorSpec([None], tf.string, name=name) for name in ("text", "text_pair")[:texts]]
    function = tf.function(serve, input_signature=signature, autograph=False)
    module = tf.Module()
    # The tokenizer's vocabulary becomes an asset. The preprocessor's packing is not saved: its operator
    # TFText>RoundRobinTrim is missing from TensorFlow Serving.
    module.tokenizer = tokenizer.saved_model.tokenize
    module.model_variables = model.variables  # Without Keras's metadata, plain TensorFlow can load it.
    module.names = names
    module.temperature = divisor
    module.threshold = limit
    module.thresholds = limits
    # train.warm_start reads this.
    module.label_scale = tf.Variable([scale.mean, scale.deviation], False, dtype=tf.float64) if scale else None
    module.serve = function
    return module, function.get_concrete_function()


def _one_at_least(texts: tf.Tensor) -> tf.Tensor:
    """The same texts, string [batch], or an empty one if there are none: encoders do not take a batch of 0."""
    return tf.concat([texts, tf.fill([tf.cast(tf.size(texts) == 0, tf.int32)], "")], axis=0)


def score_in_fresh_process(folder: str, rows: Sequence[tuple[str, ...]]) -> np.ndarray:
    """Return the scores, float32 [rows, classes], that the SavedModel in `folder` computes in a new process.

    Raises UserError if the process fails, or takes longer than SCORING_TIMEOUT_S.
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
        required = f"load and score within {SCORING_TIMEOUT_S} s in a fresh process"
        raise UserError(Problem("The export", required, "no answer")) from None
    if problem := child_process.find_signal_problem("The export's check", done.returncode, done.stderr):
        raise UserError(problem)
    if done.returncode:
        received = done.stderr.strip()[-MAX_ERROR_CHARACTERS:]
        raise UserError(Problem("The export", "load in a fresh process", received))
    predicted = json.loads(done.stdout.splitlines()[-1])
    scores: np.ndarray = np.array([row["scores"] for row in predicted], np.float32)
    return scores


def write_saved_model(
    module: tf.Module,
    signature: tf.types.experimental.ConcreteFunction,
    output: str,
    rows: Sequence[tuple[str, ...]],
    scores: np.ndarray,
    unit: float = 1.0,
    *,
    io_device: str | None = None,
) -> float:
    """Save to the folder `output` if a moved copy computes `scores`, float32 [rows, classes], for `rows` of texts.

    Returns the largest absolute difference. Raises UserError if it exceeds SCORE_TOLERANCE times `unit`, the deviation
    of labels that are numbers, and leaves an older export in `output` as it was. `io_device` is
    remote_hosts.coordinator_device of the strategy that has the variables.
    """
    # Far from 0, neighboring float32 values are further apart than that.
    tolerance = max(SCORE_TOLERANCE * unit, 2 * float(np.spacing(np.abs(scores).max())))
    with tempfile.TemporaryDirectory() as temporary:
        # An export to a bucket is written to this disk first: TensorFlow writes local files alone.
        target = os.path.join(temporary, "written") if fs.in_bucket(output) else output.rstrip("/")
        partial = f"{target}.partial"
        fs.remove(partial)
        options = tf.saved_model.SaveOptions(experimental_io_device=io_device)
        tf.saved_model.save(module, partial, signatures={"serving_default": signature}, options=options)
        moved = os.path.join(temporary, "moved")
        fs.copy_folder(partial, moved)
        difference = float(np.max(np.abs(score_in_fresh_process(moved, rows) - scores)))
        if not difference <= tolerance:
            fs.remove(partial)
            raise UserError(
                Problem(
                    "The export's scores",
                    f"be within {tolerance:.2g} of the job's",
                    f"a difference of {difference:.2e} on {len(rows)} validation texts",
                    "Nothing was exported.",
                )
            )
        fs.replace_folder(partial, output)
    return difference
