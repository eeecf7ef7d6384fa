"""Write the fine-tuned encoder of a run, to be fine-tuned again or used elsewhere: for the Hub, or for Hugging Face.

It appears only after it was loaded again and has the run's values, bit for bit, and its outputs.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from trainer.data import tokenization
from trainer.encoders import architectures, convert, hub_format, hugging_face, native, saved_models
from trainer.encoders.registry import EncoderFolders
from trainer.errors import Problem, UserError
from trainer.storage import fs

# The largest absolute difference between outputs of the exported encoder and of the run's. Measured: at most 2e-6.
TOLERANCE = 1e-5
MODEL_CARD = "README.md"

# An encoder, which is called with its inputs, and its variables.
LoadedEncoder = tuple[Callable[..., Any], list[tf.Variable]]


@dataclasses.dataclass(frozen=True)
class TrainedEncoder:
    """An encoder with the values that a run has trained, and its tokenizer."""

    name: str  # That of the encoder that the run started from.
    encoder: tf_keras.layers.Layer  # Of native.build_encoder, without seeded dropout.
    architecture: architectures.Architecture
    preprocess: str  # The folder of its preprocessor.
    vocabulary: bytes  # tokenization.read_vocabulary of the preprocessor.
    lower_case: bool


@dataclasses.dataclass(frozen=True)
class EncoderFormat:
    save: Callable[[TrainedEncoder, str], None]  # Fills an empty local folder.
    load: Callable[[str], LoadedEncoder]  # Loads what `save` has written.


def build_trained_encoder(
    architecture: architectures.Architecture, variables: Iterable[tf.Variable]
) -> tf_keras.layers.Layer:
    """An encoder with the values of a classifier's `variables`; the head's are left out.

    It has Keras's own dropout: the exporter traces it in training too, where the seeded one needs a key.
    """
    encoder = native.build_encoder(architecture, seeded_dropout=False)
    own = list(encoder.trainable_variables)
    names = native.variables_by_name(own)
    native.copy_variables_by_name([v for v in variables if native.canonical_name(v.name) in names], own)
    return encoder


def _save_for_hub(trained: TrainedEncoder, folder: str) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / tokenization.vocabulary_file_name(trained.vocabulary)
        file.write_bytes(trained.vocabulary)
        imported = convert.ImportedEncoder(trained.encoder, file, trained.lower_case)
        hub_format.save_encoder(imported, fs.join(folder, "encoder"))
    fs.copy_folder(trained.preprocess, fs.join(folder, "preprocess"))


def _load_from_hub(folder: str) -> LoadedEncoder:
    encoder = fs.join(folder, "encoder")
    saved = saved_models.load_encoder(EncoderFolders(encoder, encoder, ""))
    return saved, list(saved.trainable_variables)


def _save_for_hugging_face(trained: TrainedEncoder, folder: str) -> None:
    hugging_face.write_folder(
        Path(folder), trained.encoder, trained.architecture, trained.vocabulary, lower_case=trained.lower_case
    )


def _load_from_hugging_face(folder: str) -> LoadedEncoder:
    encoder = convert.read_hugging_face(Path(folder), Path(folder)).encoder
    return encoder, list(encoder.trainable_variables)


FORMATS = {
    "hub": EncoderFormat(_save_for_hub, _load_from_hub),
    "hugging_face": EncoderFormat(_save_for_hugging_face, _load_from_hugging_face),
}


def find_format_problem(trained: TrainedEncoder, format_name: str) -> Problem | None:
    """Why an encoder cannot be written in a format, a key of FORMATS; None if it can."""
    return (
        hugging_face.find_family_problem(trained.name, trained.architecture) if format_name == "hugging_face" else None
    )


def write_encoder(trained: TrainedEncoder, output: str, format_name: str, card: str) -> float:
    """Write an encoder and its model card to the new folder `output`, local or in a bucket.

    Returns the largest absolute difference between its outputs and the run's. Raises UserError, and writes nothing, if
    the format does not have it, or if what was written is another encoder.
    """
    if problem := find_format_problem(trained, format_name):
        raise UserError(problem)
    file_format = FORMATS[format_name]
    with fs.complete_folder(output) as partial:
        file_format.save(trained, partial)
        difference = _check_encoder(trained, *file_format.load(partial))
        fs.write_text(fs.join(partial, MODEL_CARD), card)
    return difference


def _check_encoder(trained: TrainedEncoder, loaded: Callable[..., Any], variables: list[tf.Variable]) -> float:
    """The largest difference of the outputs. Raises UserError if a value is not the run's, or the outputs are not."""
    expected = native.variables_by_name(list(trained.encoder.trainable_variables))
    values = {name: variable.numpy() for name, variable in native.variables_by_name(variables).items()}
    other = sorted(
        name
        for name in expected.keys() | values.keys()
        if name not in values or name not in expected or not np.array_equal(values[name], expected[name].numpy())
    )
    advice = "Nothing was exported."
    if other:
        raise UserError(Problem("The exported encoder", "have the run's values", f"others in {other[:3]}", advice))
    sizes = trained.architecture
    difference = native.largest_output_difference(loaded, trained.encoder, sizes.vocab_size, sizes.max_positions)
    if not difference <= TOLERANCE:  # true for NaN too
        received = f"a difference of {difference:.1e}"
        required = f"be within {TOLERANCE} of the run's"
        raise UserError(Problem("The exported encoder's outputs", required, received, advice))
    return difference
