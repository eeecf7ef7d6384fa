"""Export a classifier that takes token ids, as one file of LiteRT or ONNX, for programs without TensorFlow.

It appears only after the parity check: a fresh process computes the job's logits and labels with it.
"""

import dataclasses
import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from trainer.data import tokenization
from trainer.data.label_scale import LabelScale
from trainer.encoders import fused_layers, native
from trainer.errors import Problem, UsageError, UserError
from trainer.export import fresh_processes, token_classifier
from trainer.storage import fs

ONNX_OPSET = 17  # ONNX 1.12 of 2022, and all later runtimes.


@dataclasses.dataclass(frozen=True)
class ClassifierFormat:
    file: str
    convert: Callable[[tf.Module, str], None]  # A module of build_token_module to the file of this path.
    # What the parity check accepts: the absolute difference of a logit, of numbers in units of their deviation, and the
    # share of texts with the job's label.
    logit_tolerance: float
    same_labels: float
    packages: tuple[str, ...] = ()  # Those of the extra of the format's name.


@dataclasses.dataclass(frozen=True)
class ParityTexts:
    """Texts as the model's inputs, and what the job computes for them."""

    inputs: dict[str, np.ndarray]  # int32 [N, S], or with windows [N, W, S].
    logits: np.ndarray  # float32 [N, C], of numbers in their own units.
    decide: Callable[[np.ndarray], np.ndarray]  # Logits to labels, as the job decides. Of numbers, they are the logits.
    unit: float = 1.0  # The deviation of labels that are numbers.
    has_labels: bool = True  # Whether there are labels to compare: not of numbers.


def build_token_module(model: tf_keras.Model, scale: LabelScale | None, rank: int) -> tf.Module:
    """A module whose `classify` maps the model's inputs, int32 of this rank, to {"logits": float32 [B, C]}.

    With a `scale`, the logits are in the label's own units.
    """

    def classify(input_word_ids: tf.Tensor, input_mask: tf.Tensor, input_type_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        values = (input_word_ids, input_mask, input_type_ids)
        with fused_layers.use_plain_layers():
            logits = model(dict(zip(native.INPUT_NAMES, values, strict=True)), training=False)
        return {token_classifier.OUTPUT: logits * scale.deviation + scale.mean if scale else logits}

    signature = [tf.TensorSpec([None] * rank, tf.int32, name=name) for name in native.INPUT_NAMES]
    module = tf.Module()
    module.model_variables = model.variables
    module.classify = tf.function(classify, input_signature=signature, autograph=False)
    return module


def _convert_to_litert(module: tf.Module, path: str, *, int8: bool = False) -> None:
    with tempfile.TemporaryDirectory() as temporary:  # Of a SavedModel alone, the converter keeps the inputs' names.
        signature = module.classify.get_concrete_function()
        tf.saved_model.save(module, temporary, signatures={"serving_default": signature})
        converter = tf.lite.TFLiteConverter.from_saved_model(temporary)
        if int8:  # Dynamic range: weights are int8, and activations are quantized while it runs.
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        Path(path).write_bytes(converter.convert())


def _convert_to_litert_int8(module: tf.Module, path: str) -> None:
    _convert_to_litert(module, path, int8=True)


def _convert_to_onnx(module: tf.Module, path: str) -> None:
    import tf2onnx

    classify = module.classify
    model, _ = tf2onnx.convert.from_function(
        classify,
        input_signature=classify.input_signature,
        opset=ONNX_OPSET,
        custom_op_handlers={"Erfc": (_convert_erfc, [])},
    )
    for value in model.graph.input:
        names = ("batch", "tokens") if len(value.type.tensor_type.shape.dim) == 2 else ("batch", "windows", "tokens")
        for dimension, name in zip(value.type.tensor_type.shape.dim, names, strict=True):
            dimension.dim_param = name
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    Path(path).write_bytes(model.SerializeToString())


def _convert_erfc(context: Any, node: Any, name: str, arguments: list[Any]) -> None:
    """Erfc(x) as 1 - Erf(x): GELU has it, and ONNX does not. `context` is tf2onnx's graph."""
    one = context.make_const(f"{name}/one", np.ones([], np.float32)).output[0]
    source, outputs, shapes, types = node.input[0], node.output, node.output_shapes, node.output_dtypes
    context.remove_node(node.name)
    erf = context.make_node("Erf", [source], shapes=shapes, dtypes=types).output[0]
    context.make_node("Sub", [one, erf], name=name, outputs=outputs, shapes=shapes, dtypes=types)


FORMATS = {
    "litert": ClassifierFormat("model.tflite", _convert_to_litert, 1e-3, 1.0),
    "litert_int8": ClassifierFormat("model.tflite", _convert_to_litert_int8, 1.0, 0.95),
    "onnx": ClassifierFormat("model.onnx", _convert_to_onnx, 1e-3, 1.0, ("tf2onnx", "onnxruntime")),
}


def check_packages(format_name: str) -> None:
    """Raises UsageError if what a format needs is not installed."""
    missing = [name for name in FORMATS[format_name].packages if importlib.util.find_spec(name) is None]
    if missing:
        required = "be a format whose packages are installed"
        advice = f"Run: pip install --editable '.[{format_name}]' in the repository."
        raise UsageError(Problem("--format", required, f"{format_name}, without {', '.join(missing)}", advice))


def write_classifier(
    module: tf.Module,
    output: str,
    format_name: str,
    description: Mapping[str, Any],
    vocabulary: bytes,
    parity: ParityTexts,
    measure: Callable[[token_classifier.Classify], Mapping[str, Any]],
) -> dict[str, Any]:
    """Write a classifier, its description and its vocabulary to the new folder `output`, local or in a bucket.

    Returns the description, to which the parity check and what `measure` returns are added. Raises UserError, and
    writes nothing, if the check fails.
    """
    file_format = FORMATS[format_name]
    vocabulary_file = tokenization.vocabulary_file_name(vocabulary)
    described = {"format": format_name, "model": file_format.file, "vocabulary_file": vocabulary_file, **description}
    with fs.complete_folder(output) as partial:
        path = fs.join(partial, token_classifier.DESCRIPTION_FILE)
        file_format.convert(module, fs.join(partial, file_format.file))
        fs.write_bytes(fs.join(partial, vocabulary_file), vocabulary)
        fs.write_text(path, json.dumps(described))
        described["check"] = check_parity(classify_in_fresh_process(partial, parity.inputs), parity, file_format)
        described["metrics"] = measure(token_classifier.load_classifier(partial))
        fs.write_text(path, json.dumps(described, indent=1, ensure_ascii=False) + "\n")
    return described


def classify_in_fresh_process(folder: str, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """The logits, float32 [N, C], that the classifier in a local folder computes in a new process.

    Raises UserError as fresh_processes.read_output does.
    """
    with tempfile.TemporaryDirectory() as temporary:
        stored, output = os.path.join(temporary, "inputs.npz"), os.path.join(temporary, "logits.npy")
        arrays: dict[str, Any] = dict(inputs)
        np.savez(stored, **arrays)
        with fresh_processes.fresh_process("trainer.export.token_classifier", folder, stored, output) as process:
            fresh_processes.read_output(process)
        logits: np.ndarray = np.load(output)
    return logits


def check_parity(logits: np.ndarray, parity: ParityTexts, file_format: ClassifierFormat) -> dict[str, Any]:
    """{"texts", "largest_difference", "same_labels"} of an export's logits. Raises UserError if they are not the job's.

    `logits` are float32 [texts, classes], those of the parity texts in their order. The difference is of a logit. The
    labels are left out for numbers.
    """
    difference = float(np.max(np.abs(logits - parity.logits)))
    found: dict[str, Any] = {"texts": len(logits), "largest_difference": difference}
    tolerance = file_format.logit_tolerance * parity.unit
    problems, advice = [], "Nothing was exported."
    if not difference <= tolerance:  # true for NaN too
        received = f"a difference of {difference:.2e} on {len(logits)} validation texts"
        problems.append(Problem("The export's logits", f"be within {tolerance:.2g} of the job's", received, advice))
    if parity.has_labels:
        same = parity.decide(logits) == parity.decide(parity.logits)
        same = same if same.ndim == 1 else same.all(axis=1)
        found["same_labels"] = int(same.sum())
        if same.mean() < file_format.same_labels:
            required = f"be the job's for {file_format.same_labels:.0%} of the validation texts"
            received = f"those of {int(same.sum())} of {len(same)}"
            problems.append(Problem("The export's labels", required, received, advice))
    if problems:
        raise UserError(*problems)
    return found
