"""Read the values of a BERT encoder's variables from a file of weights, by the names that its family has for them.

Every tensor of a file is used, or is known to belong to a head or an optimizer, or the file is refused.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf
import tf_keras

from trainer.encoders import native, tensor_names
from trainer.encoders.tensor_names import TensorNames
from trainer.encoders.weight_files import WeightsFile
from trainer.errors import Problem, describe_error

MAX_VALUE_PROBLEMS = 5  # One wrong size is found again in every layer.
POOLER_SEED = 0
POOLER_STDDEV = 0.02  # BERT's own, for every kernel

_LOG = logging.getLogger(__name__)


def read_values(
    encoder: tf_keras.Model, file: WeightsFile, names: TensorNames
) -> tuple[dict[str, np.ndarray], list[Problem]]:
    """The value of each of a BertEncoder's variables, by canonical name: float32, in stored_shape.

    What has no pooler gets one drawn by POOLER_SEED, and what has no token types gets zeros for them.

    Returns a problem as well for what is missing, not expected, damaged, or of another shape.
    """
    shapes = {native.canonical_name(v.name): stored_shape(v) for v in encoder.trainable_variables}
    files_names: dict[str, list[str]] = {}
    for name in file.names:
        files_names.setdefault(tensor_names.plain_name(names, name), []).append(name)
    expected = {canonical: tensor_names.file_name(names, canonical) for canonical in shapes}
    drawn = _find_drawn(expected, files_names)
    expected = {canonical: plain for canonical, plain in expected.items() if canonical not in drawn}
    values: dict[str, np.ndarray] = {canonical: _draw(canonical, shapes[canonical]) for canonical in drawn}
    problems = []
    for canonical, plain in expected.items():
        if plain in files_names:
            is_transposed = names.transposed and canonical.endswith("/kernel")
            read = _read_value(file, files_names[plain][0], f"{plain} in {file.path}", shapes[canonical], is_transposed)
            if isinstance(read, Problem):
                problems.append(read)
            else:
                values[canonical] = read
    if any(canonical.startswith("pooler_transform/") for canonical in drawn):
        _LOG.warning(
            "%s has no pooler, as what was trained on masked words alone: it was drawn at random, with seed %d, and is "
            "learned in training. Set model.pooling=mean to do without one.",
            file.path,
            POOLER_SEED,
        )
    name_problems = _find_name_problems(file, names, list(filter(None, expected.values())), files_names)
    return values, [*name_problems, *problems[:MAX_VALUE_PROBLEMS]]


def assign_values(encoder: tf_keras.Model, values: Mapping[str, np.ndarray]) -> None:
    """Assign to every variable of a BertEncoder its value of read_values."""
    for variable in encoder.trainable_variables:
        variable.assign(values[native.canonical_name(variable.name)].reshape(variable.shape))


def stored_values(encoder: tf_keras.Model) -> dict[str, np.ndarray]:
    """The values of a BertEncoder's variables, as read_values returns them."""
    return {
        native.canonical_name(variable.name): variable.numpy().reshape(stored_shape(variable))
        for variable in encoder.trainable_variables
    }


def to_hugging_face(encoder: tf_keras.layers.Layer) -> dict[str, np.ndarray]:
    """The values of a BERT's variables by Hugging Face's names: what read_values reads again, bit for bit."""
    names = tensor_names.HUGGING_FACE["bert"]
    return {
        str(tensor_names.file_name(names, canonical)): np.ascontiguousarray(
            value.T if canonical.endswith("/kernel") else value
        )
        for canonical, value in stored_values(encoder).items()
    }


def stored_shape(variable: tf.Variable) -> tuple[int, ...]:
    """The variable's shape in files, [in, out] or [size], where the heads of attention are not an axis of their own."""
    shape = tuple(variable.shape)
    if "self_attention/" not in variable.name:
        return shape
    if variable.name.endswith("attention_output/kernel:0"):
        return (math.prod(shape[:-1]), shape[-1])
    return (shape[0], math.prod(shape[1:])) if variable.name.endswith("kernel:0") else (math.prod(shape),)


def _find_drawn(expected: Mapping[str, str | None], files_names: Mapping[str, list[str]]) -> list[str]:
    """The canonical names of what a family lacks, and of a pooler of which the file has no part."""
    pooler = [canonical for canonical in expected if canonical.startswith("pooler_transform/")]
    has_pooler = any(expected[canonical] in files_names for canonical in pooler)
    return [
        canonical for canonical, plain in expected.items() if plain is None or (canonical in pooler and not has_pooler)
    ]


def _draw(canonical: str, shape: tuple[int, ...]) -> np.ndarray:
    """The first value of a variable that a file lacks: only the pooler's kernel is not 0."""
    if canonical == "pooler_transform/kernel":
        return np.random.default_rng(POOLER_SEED).normal(0, POOLER_STDDEV, shape).astype(np.float32)
    return np.zeros(shape, np.float32)


def _find_name_problems(
    file: WeightsFile, names: TensorNames, expected: Sequence[str], files_names: Mapping[str, list[str]]
) -> Iterator[Problem]:
    def some(found: list[str]) -> str:
        return ", ".join(sorted(found)[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")

    if missing := [plain for plain in expected if plain not in files_names]:
        yield Problem(str(file.path), "hold all weights of the configuration's encoder", f"no {some(missing)}")
    if other := [plain for plain in files_names if plain not in expected and not names.unused.match(plain)]:
        yield Problem(
            str(file.path),
            "hold no weights that the configuration's encoder does not have",
            some(other),
            "Check the number of layers and the kind of encoder in the configuration.",
        )
    if repeated := [name for plain in expected if len(files_names.get(plain, ())) > 1 for name in files_names[plain]]:
        yield Problem(str(file.path), "hold every weight once", some(repeated))


def _read_value(
    file: WeightsFile, name: str, subject: str, shape: tuple[int, ...], is_transposed: bool
) -> np.ndarray | Problem:
    """The tensor of a name as float32, or what is wrong with it."""
    try:
        value = file.read(name)
    except Exception as error:  # TensorFlow raises errors of several types for files that are cut.
        return Problem(subject, "be readable", describe_error(error), "Download the file again.")
    value = value.T if is_transposed else value
    if value.shape != shape:
        return Problem(subject, f"have the shape {shape} that the configuration's sizes give", str(value.shape))
    if value.dtype.kind not in "fV":  # NumPy's kind of bfloat16 is V
        return Problem(subject, "hold floating-point numbers", str(value.dtype))
    if not np.isfinite(value := value.astype(np.float32)).all():
        count = int((~np.isfinite(value)).sum())
        return Problem(subject, "hold finite numbers", f"{count:,} of {value.size:,} that are NaN or infinite")
    return value
