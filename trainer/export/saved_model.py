"""Export a SavedModel that takes text: tokenization, the truncation of training, encoder, scores and class names.

It is written under a temporary name and replaces an older export only after the parity check: a fresh process loads a
moved copy and computes the same scores as the job, and gives the same labels. That process has nothing of the job: it
shows that the folder alone is enough, wherever it lies.
"""

import contextlib
import dataclasses
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf
import tf_keras

from trainer.data import label_scale, tokenization
from trainer.data.windows import Windows, pack_windows
from trainer.encoders import fused_layers
from trainer.encoders.window_pooling import pool_ragged_windows
from trainer.errors import Problem, UserError
from trainer.export import fresh_processes
from trainer.storage import fs


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """What the parity check accepts between the scores of the job and of the export.

    Both are absolute differences, of numbers in units of their standard deviation.
    """

    largest: float
    root_mean_square: float  # Over all texts and classes: what is off by a little everywhere exceeds this one.


# By the precision that both compute in. The job and the export put a text into batches of other shapes, and round
# differently. Measured in bfloat16 on 100 IMDB reviews of 256 tokens with a trained minilm, between batches of 7, 25
# and 32: 0.0086 and 0.0012, as much as between bfloat16 and float32. The errors of deeper encoders grow with the square
# root of their layers, and GPUs and TPUs add in an order of their own.
TOLERANCES = {"float32": Tolerance(1e-4, 1e-4), "bfloat16": Tolerance(0.05, 0.01)}


@dataclasses.dataclass(frozen=True)
class ScoredTexts:
    """N texts or pairs, and what the job computed for them. C classes, 1 for numbers."""

    rows: Sequence[tuple[str, ...]]  # One text or two each.
    scores: np.ndarray  # float32 [N, C]
    labels: np.ndarray | None  # Names [N], or of several labels bool [N, C]. None for numbers.
    margins: np.ndarray | None  # How far a score may move before the label changes: float32, of the shape of `labels`.
    tolerance: Tolerance
    unit: float = 1.0  # The deviation of labels that are numbers.


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
    positive, least = threshold or (0, None)
    module = _create_variables(labels, temperature, least, thresholds)

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
            second = tokens[1] if texts == 2 else None
            inputs = tokenization.pack_inputs(tokens[0], second, tokenizer.special, seq_length, truncation)
            logits = model(inputs, training=False)
        if scale:
            logits = logits * scale.deviation + scale.mean
        return _decide(logits, module, positive)

    signature = [tf.TensorSpec([None], tf.string, name=name) for name in ("text", "text_pair")[:texts]]
    function = tf.function(serve, input_signature=signature, autograph=False)
    # The tokenizer's vocabulary becomes an asset. The preprocessor's packing is not saved: its operator
    # TFText>RoundRobinTrim is missing from TensorFlow Serving.
    module.tokenizer = tokenizer.saved_model.tokenize
    module.model_variables = model.variables  # Without Keras's metadata, plain TensorFlow can load it.
    # train.warm_start reads this.
    module.label_scale = tf.Variable([scale.mean, scale.deviation], False, dtype=tf.float64) if scale else None
    module.serve = function
    return module, function.get_concrete_function()


def _create_variables(
    labels: Sequence[str], temperature: float, threshold: float | None, thresholds: np.ndarray | None
) -> tf.Module:
    """A module with what _decide reads, each None where there is none."""
    module = tf.Module()
    # predict.class_names reads this. It is a variable because a loaded SavedModel does not expose plain tensors.
    module.names = tf.Variable(list(labels), trainable=False) if labels else None
    module.temperature = tf.Variable(temperature, trainable=False, dtype=tf.float32) if labels else None
    module.threshold = None if threshold is None else tf.Variable(threshold, trainable=False, dtype=tf.float32)
    module.thresholds = None if thresholds is None else tf.Variable(thresholds, trainable=False, dtype=tf.float32)
    return module


def _decide(logits: tf.Tensor, module: tf.Module, positive: int) -> dict[str, tf.Tensor]:
    """The outputs of the signature for logits, float32 [batch, classes]. The threshold is that of class `positive`."""
    if module.names is None:
        return {"scores": tf.identity(logits), "logits": logits}
    if module.thresholds is not None:
        scores = tf.sigmoid(logits / module.temperature)
        return {"scores": scores, "logits": logits, "labels": tf.where(scores > module.thresholds, module.names, "")}
    scores = tf.nn.softmax(logits / module.temperature)
    chosen = tf.argmax(logits, 1)
    if module.threshold is not None:
        chosen = tf.where(scores[:, positive] > module.threshold, positive, 1 - positive)
    return {"scores": scores, "logits": logits, "labels": tf.gather(module.names, chosen)}


def _one_at_least(texts: tf.Tensor) -> tf.Tensor:
    """The same texts, string [batch], or an empty one if there are none: encoders do not take a batch of 0."""
    return tf.concat([texts, tf.fill([tf.cast(tf.size(texts) == 0, tf.int32)], "")], axis=0)


@dataclasses.dataclass(frozen=True)
class ParityProcess:
    """A process that scores with the SavedModel in a folder, which need not be there yet."""

    folder: str
    process: subprocess.Popen[str]


@contextlib.contextmanager
def parity_process() -> Iterator[ParityProcess]:
    """Start the process of the parity check. It imports TensorFlow, which takes seconds, while the export is made.

    It ends with the block at the latest, and its folder goes.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = os.path.join(temporary, "moved")
        with fresh_processes.fresh_process("trainer.export.predict", folder) as process:
            yield ParityProcess(folder, process)


def score_in_fresh_process(fresh: ParityProcess, rows: Sequence[tuple[str, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """The scores, float32 [N, C], and the labels, as those of ScoredTexts, that the process computes for N rows.

    Raises UserError as fresh_processes.read_output does.
    """
    output = fresh_processes.read_output(fresh.process, json.dumps(rows))
    predicted = json.loads(output.splitlines()[-1])
    scores = np.array([row["scores"] for row in predicted], np.float32)
    if all(row["labels"] is None for row in predicted):
        return scores, np.array([row["label"] for row in predicted])
    given = np.zeros(scores.shape, bool)
    for row, of_text in zip(given, predicted, strict=True):
        row[of_text["labels"]] = True
    return scores, given


def write_saved_model(
    module: tf.Module,
    signature: tf.types.experimental.ConcreteFunction,
    output: str,
    expected: ScoredTexts,
    fresh: ParityProcess,
    *,
    io_device: str | None = None,
) -> float:
    """Save to the folder `output` if a moved copy computes what is `expected` in a process of parity_process.

    Returns the largest absolute difference of a score. Raises what check_parity does, and leaves an older export in
    `output` as it was. `io_device` is remote_hosts.coordinator_device of the strategy that has the variables.
    """
    with tempfile.TemporaryDirectory() as temporary:
        # An export to a bucket is written to this disk first: TensorFlow writes local files alone.
        target = os.path.join(temporary, "written") if fs.in_bucket(output) else output.rstrip("/")
        partial = f"{target}.partial"
        fs.remove(partial)
        options = tf.saved_model.SaveOptions(experimental_io_device=io_device)
        try:
            tf.saved_model.save(module, partial, signatures={"serving_default": signature}, options=options)
            fs.copy_folder(partial, fresh.folder)
            difference = check_parity(*score_in_fresh_process(fresh, expected.rows), expected)
        except BaseException:
            fs.remove(partial)
            raise
        fs.replace_folder(partial, output)  # If it fails, the new export is the only whole one: it stays.
    return difference


def check_parity(scores: np.ndarray, labels: np.ndarray, expected: ScoredTexts) -> float:
    """The largest absolute difference of an export's scores, float32 [N, C], from the job's.

    Raises UserError if it, or the root of the mean of the squares of all, exceeds the tolerance; and if a label is
    another one whose score the tolerance does not leave open: its margin is larger.
    """
    differences = np.abs(scores - expected.scores)
    # Far from 0, neighboring float32 values are further apart than that.
    spacing = 2 * float(np.spacing(np.abs(expected.scores).max()))
    largest, mean_square = float(differences.max()), float(np.sqrt(np.mean(np.square(differences, dtype=np.float64))))
    limits = expected.tolerance
    texts, advice, problems = f"on {len(scores)} texts", "Nothing was exported.", []
    for measure, difference, limit in (
        ("", largest, limits.largest),
        ("the root mean square of ", mean_square, limits.root_mean_square),
    ):
        limit = max(limit * expected.unit, spacing)
        if not difference <= limit:  # true for NaN too
            received = f"{measure}a difference of {difference:.2e} {texts}"
            problems.append(Problem("The export's scores", f"be within {limit:.2g} of the job's", received, advice))
    if expected.labels is not None and expected.margins is not None:
        other = np.sum((labels != expected.labels) & ~(expected.margins <= limits.largest))
        if other:
            required = "be the job's, unless its scores within the tolerance leave them open"
            problems.append(Problem("The export's labels", required, f"{other} others {texts}", advice))
    if problems:
        raise UserError(*problems)
    return largest
