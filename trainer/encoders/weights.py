"""Read the values of a BERT's variables from other formats: Hugging Face's safetensors, Google's checkpoints of 2018.

Every tensor of a file is used, or is known to belong to a head or an optimizer, or the file is refused.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import tensorflow as tf
import tf_keras

from trainer.encoders import native
from trainer.errors import Problem, UserError, describe_error

MAX_VALUE_PROBLEMS = 5  # One wrong size is found again in every layer.

# --- Names ----------------------------------------------------------------------------------------

# A variable's canonical name in official.nlp, without its last part -> its name in Google's checkpoints of 2018.
# Hugging Face's names are the latter with dots, and its kernels are transposed.
_GOOGLE_NAMES = {
    "word_embeddings": "embeddings/word_embeddings",
    "position_embedding": "embeddings/position_embeddings",
    "type_embeddings": "embeddings/token_type_embeddings",
    "embeddings/layer_norm": "embeddings/LayerNorm",
    "self_attention/query": "attention/self/query",
    "self_attention/key": "attention/self/key",
    "self_attention/value": "attention/self/value",
    "self_attention/attention_output": "attention/output/dense",
    "self_attention_layer_norm": "attention/output/LayerNorm",
    "intermediate": "intermediate/dense",
    "output": "output/dense",
    "output_layer_norm": "output/LayerNorm",
    "pooler_transform": "pooler/dense",
}

# Tensors that an encoder does without: heads, buffers that only count positions, the state of optimizers.
_UNUSED_BY_HUGGING_FACE = re.compile(r"(cls|classifier|qa_outputs)\.|embeddings\.(position_ids|token_type_ids)$")
_UNUSED_BY_GOOGLE = re.compile(
    r"cls/|output_(weights|bias)$|global_step$|.*/adam_[mv]$|.*/Adam(_1)?$|beta[12]_power$|(good|bad)_steps$|loss_scale$"
)


def google_name(name: str) -> str:
    """`transformer/layer_3/output/kernel` -> `encoder/layer_3/output/dense/kernel`."""
    path, kind = name.rsplit("/", 1)
    layer = ""
    if path.startswith("transformer/"):
        _, layer, path = path.split("/", 2)
        layer = f"encoder/{layer}/"
    return layer + _GOOGLE_NAMES[path] + ("" if kind == "embeddings" else f"/{kind}")


def hugging_face_name(name: str) -> str:
    """`transformer/layer_3/output/kernel` -> `encoder.layer.3.output.dense.weight`."""
    dotted = google_name(name).replace("layer_", "layer.").replace("/", ".")
    if name.endswith("/embeddings"):
        return dotted + ".weight"
    path, kind = dotted.rsplit(".", 1)
    return f"{path}.{ {'kernel': 'weight', 'gamma': 'weight', 'beta': 'bias', 'bias': 'bias'}[kind] }"


# --- Files ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class WeightsFile:
    """The tensors of a file, and how they are named and stored."""

    path: Path
    names: list[str]
    read: Callable[[str], np.ndarray]  # The tensor of a name.
    plain_name: Callable[[str], str]  # A name in the file -> without prefix and spellings of older versions.
    expected_name: Callable[[str], str]  # The canonical name of a variable -> its plain name.
    unused: re.Pattern[str]  # The plain names of tensors that an encoder does without.
    transposed: bool  # Kernels are [heads * size, in] instead of [in, heads * size].


def _plain_hugging_face_name(name: str) -> str:
    return re.sub(r"LayerNorm\.(gamma|beta)$", _replace_old_name, name.removeprefix("bert."))


def _replace_old_name(match: re.Match[str]) -> str:
    return {"gamma": "LayerNorm.weight", "beta": "LayerNorm.bias"}[match[1]]


def open_safetensors(path: Path) -> WeightsFile:
    """Raises UserError if the file is cut, or not in this format."""
    try:
        values = safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:  # the latter for unknown types
        with path.open("rb") as file:
            is_pointer = file.read(20).startswith(b"version https://git-")
        advice = "It is a pointer of Git LFS: git lfs pull replaces it." if is_pointer else "Download it again."
        received = f"{path.stat().st_size:,} bytes that cannot be read ({type(error).__name__}: {error})"
        raise UserError(Problem(str(path), "be a complete file of safetensors", received, advice)) from None
    return WeightsFile(
        path,
        list(values),
        values.__getitem__,
        _plain_hugging_face_name,
        hugging_face_name,
        _UNUSED_BY_HUGGING_FACE,
        transposed=True,
    )


def open_checkpoint(path: Path, reader: Any) -> WeightsFile:
    """A checkpoint of names, as TensorFlow 1 wrote it. `path` is its prefix, `reader` tf.train.load_checkpoint's."""
    return WeightsFile(
        path,
        list(reader.get_variable_to_shape_map()),
        reader.get_tensor,
        lambda name: name.removeprefix("bert/"),
        google_name,
        _UNUSED_BY_GOOGLE,
        transposed=False,
    )


# --- Values ---------------------------------------------------------------------------------------


def assign_values(encoder: tf_keras.Model, file: WeightsFile) -> list[Problem]:
    """Assign to every variable of a BertEncoder its value in the file.

    Returns a problem for what is missing, not expected, damaged, or of another shape.
    """
    expected = {file.expected_name(native.canonical_name(v.name)): v for v in encoder.trainable_variables}
    names: dict[str, list[str]] = {}
    for name in file.names:
        names.setdefault(file.plain_name(name), []).append(name)
    value_problems = [
        problem
        for plain, variable in expected.items()
        if plain in names
        for problem in _assign_value(variable, plain, names[plain][0], file)
    ]
    return [*_find_name_problems(file, expected, names), *value_problems[:MAX_VALUE_PROBLEMS]]


def find_unnamed(variables: Iterable[tf.Variable]) -> list[str]:
    """The canonical names of the variables that Hugging Face's BERT does not have."""
    names = [native.canonical_name(variable.name) for variable in variables]
    return [
        name for name in names if re.sub(r"^transformer/layer_\d+/", "", name).rpartition("/")[0] not in _GOOGLE_NAMES
    ]


def to_hugging_face(variables: Iterable[tf.Variable]) -> dict[str, np.ndarray]:
    """The values of a BERT's variables by Hugging Face's names: what assign_values assigns again, bit for bit."""
    values = {}
    for variable in variables:
        value = variable.numpy().reshape(_stored_shape(variable))
        if variable.name.endswith("kernel:0"):
            value = np.ascontiguousarray(value.T)
        values[hugging_face_name(native.canonical_name(variable.name))] = value
    return values


def _find_name_problems(
    file: WeightsFile, expected: Mapping[str, tf.Variable], names: Mapping[str, list[str]]
) -> Iterator[Problem]:
    def some(found: list[str]) -> str:
        return ", ".join(sorted(found)[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")

    if missing := [plain for plain in expected if plain not in names]:
        only_pooler = all(plain.startswith("pooler") for plain in missing)
        advice = "What was trained on masked words alone has no pooler, and no output for a text as a whole."
        required = "hold all weights of the configuration's BERT"
        yield Problem(str(file.path), required, f"no {some(missing)}", advice if only_pooler else "")
    if other := [plain for plain in names if plain not in expected and not file.unused.match(plain)]:
        yield Problem(
            str(file.path),
            "hold no weights that the configuration's BERT does not have",
            some(other),
            "Check the number of layers and the kind of encoder in the configuration.",
        )
    if repeated := [name for plain in names if plain in expected and len(names[plain]) > 1 for name in names[plain]]:
        yield Problem(str(file.path), "hold every weight once", some(repeated))


def _assign_value(variable: tf.Variable, plain: str, name: str, file: WeightsFile) -> Iterator[Problem]:
    """Assign a variable its value, unless there is a problem with it."""
    subject = f"{plain} in {file.path}"
    try:
        value = file.read(name)
    except Exception as error:  # TensorFlow raises errors of several types for files that are cut.
        yield Problem(subject, "be readable", describe_error(error), "Download the file again.")
        return
    if file.transposed and variable.name.endswith("kernel:0"):
        value = value.T
    shape = _stored_shape(variable)
    if value.shape != shape:
        yield Problem(subject, f"have the shape {shape} that the configuration's sizes give", str(value.shape))
    elif value.dtype.kind not in "fV":  # NumPy's kind of bfloat16 is V
        yield Problem(subject, "hold floating-point numbers", str(value.dtype))
    elif not np.isfinite(value := value.astype(np.float32)).all():
        count = int((~np.isfinite(value)).sum())
        yield Problem(subject, "hold finite numbers", f"{count:,} of {value.size:,} that are NaN or infinite")
    else:
        variable.assign(value.reshape(variable.shape))


def _stored_shape(variable: tf.Variable) -> tuple[int, ...]:
    """The variable's shape in files, where the heads of attention are not an axis of their own."""
    shape = tuple(variable.shape)
    if "self_attention/" not in variable.name:
        return shape
    if variable.name.endswith("attention_output/kernel:0"):
        return (math.prod(shape[:-1]), shape[-1])
    return (shape[0], math.prod(shape[1:])) if variable.name.endswith("kernel:0") else (math.prod(shape),)
