"""Convert BERT weights of other formats to SavedModels in the Hub's format, encoder/ and preprocess/.

Each reader returns an ImportedEncoder: an encoder of official.nlp with its values, and the vocabulary it was trained
with. `write_encoder` exports it with official.nlp's own exporter, which made the Hub's encoders, so that whatever works
with the Hub's encoders works with the result.
"""

import dataclasses
import functools
import logging
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from official.modeling import hyperparams
from official.nlp.configs import encoders as encoder_configs
from official.nlp.modeling import networks
from official.nlp.tools import export_tfhub_lib

from trainer.encoders import (
    architectures,
    bert_configs,
    builders,
    native,
    reference,
    saved_models,
    source_files,
    tensor_names,
    vocabularies,
    weight_files,
    weights,
)
from trainer.encoders.reference import Reference
from trainer.errors import Problem, UserError, describe_error
from trainer.storage import fs

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ImportedEncoder:
    """An encoder with its values, and what its preprocessor needs."""

    encoder: tf_keras.Model | tf_keras.layers.Layer
    vocabulary_file: Path  # WordPiece's vocab.txt or SentencePiece's *.model.
    lower_case: bool
    reference: Reference | None = None  # What the export has to compute. None if there is no other source.


# --- Readers --------------------------------------------------------------------------------------


def build_bert(architecture: architectures.Architecture) -> tf_keras.Model:
    encoder = networks.BertEncoder(**builders.bert_options(architecture), dict_outputs=True)
    native.set_layer_norm_epsilon(encoder, architecture.layer_norm_epsilon)
    _LOG.info(
        "note: an encoder of %d layers of size %d, with %d attention heads of size %d. The number of heads is the "
        "configuration's: no weight shows whether it is right.",
        architecture.layers,
        architecture.hidden_size,
        architecture.heads,
        architecture.hidden_size // architecture.heads,
    )
    return encoder


def read_hugging_face(folder: Path, scratch: Path) -> ImportedEncoder:
    """Read a Hugging Face BERT, DistilBERT or ELECTRA: config.json, weights, a vocabulary, a tokenizer's files, if any.

    The vocabulary of a tokenizer.json is written to the folder `scratch`, if there is no vocab.txt.

    Raises UserError with every missing file, or with all that is damaged or that the Hub's format cannot express.
    """
    source_files.require_files(
        folder, "--source=hf:DIR", ["config.json"], weight_files.FILES, ["vocab.txt", "tokenizer.json"]
    )
    model_type = bert_configs.read_model_type(folder / "config.json")
    architecture = bert_configs.read_architecture(folder / "config.json")
    vocabulary_file = vocabularies.find_vocabulary_file(folder, scratch)
    pieces = vocabularies.read_vocabulary(vocabulary_file)
    vocabulary_source = vocabulary_file if vocabulary_file.parent == folder else folder / "tokenizer.json"
    settings = vocabularies.read_tokenizer_settings(folder)
    added = vocabularies.find_added_tokens(folder, pieces)
    encoder = build_bert(architecture)
    names = tensor_names.HUGGING_FACE[model_type]
    values, problems = weights.read_values(encoder, weight_files.open_weights(folder), names)
    problems = [
        *vocabularies.find_vocabulary_problems(vocabulary_source, pieces, architecture.vocab_size, len(added)),
        *vocabularies.find_tokenizer_problems(folder, settings, pieces),
        *problems,
    ]
    if problems:
        raise UserError(*problems)
    weights.assign_values(encoder, values)
    lower_case = vocabularies.is_lower_case(settings, pieces, vocabulary_source)
    return ImportedEncoder(encoder, vocabulary_file, lower_case, Reference(architecture, values))


def read_checkpoint(folder: Path) -> ImportedEncoder:
    """Read bert_config.json, vocab.txt and a checkpoint: one of Google's of 2018, or of tf-models-official.

    Raises UserError with every missing file, or with all that is damaged or that the Hub's format cannot express.
    """
    source_files.require_files(folder, "--source=checkpoint:DIR", ["bert_config.json"], ["vocab.txt"])
    indexes = sorted(folder.glob("*.index"))
    if len(indexes) != 1:
        raise UserError(
            Problem("--source=checkpoint:DIR", "name a folder with one *.index file", f"{folder} with {len(indexes)}")
        )
    architecture = bert_configs.read_architecture(folder / "bert_config.json")
    vocabulary_file = folder / "vocab.txt"
    pieces = vocabularies.read_vocabulary(vocabulary_file)
    problems = vocabularies.find_vocabulary_problems(vocabulary_file, pieces, architecture.vocab_size)
    encoder = build_bert(architecture)
    prefix = str(indexes[0].with_suffix(""))
    readable_prefix = os.path.join(fs.tensorflow_path(str(folder)), indexes[0].stem)
    try:
        reader = tf.train.load_checkpoint(readable_prefix)
    except Exception as error:  # TensorFlow raises errors of several types for files that are cut.
        raise UserError(*problems, _damaged(prefix, error)) from None
    if "_CHECKPOINTABLE_OBJECT_GRAPH" in reader.get_variable_to_shape_map():
        problems += _restore_objects(encoder, readable_prefix, list(reader.get_variable_to_shape_map()))
        values = weights.stored_values(encoder)
    else:
        file = weight_files.open_checkpoint(Path(prefix), reader)
        values, value_problems = weights.read_values(encoder, file, tensor_names.GOOGLE)
        problems += value_problems
    if problems:
        raise UserError(*problems)
    weights.assign_values(encoder, values)
    # No file says whether Google's vocabularies are cased.
    lower_case = vocabularies.decide_lower_case(pieces, vocabulary_file)
    return ImportedEncoder(encoder, vocabulary_file, lower_case, Reference(architecture, values))


def _damaged(prefix: str, error: Exception) -> Problem:
    received = f"files that cannot be read ({describe_error(error)})"
    return Problem(prefix, "be a complete checkpoint", received, "Copy or download its files again.")


def _restore_objects(encoder: tf_keras.Model, prefix: str, keys: list[str]) -> list[Problem]:
    """Restore a checkpoint of objects, in which the encoder is named encoder or model."""
    values = [key for key in keys if key.endswith("/.ATTRIBUTES/VARIABLE_VALUE") and "/.OPTIMIZER_SLOT/" not in key]
    name = "encoder" if any(key.startswith("encoder/") for key in values) else "model"
    stored, own = sum(key.startswith(f"{name}/") for key in values), len(encoder.variables)
    required = "hold a BertEncoder of the configuration's sizes under the name encoder or model"
    try:
        status = tf.train.Checkpoint(**{name: encoder}).restore(prefix)
        status.assert_existing_objects_matched().expect_partial()
    except AssertionError as error:
        return [Problem(prefix, required, str(error)[:200])]
    except Exception as error:  # as above; ValueError for another shape
        return [_damaged(prefix, error)]
    if stored != own:
        received = f"{stored} variables under {name}/, where the configuration gives {own}"
        return [Problem(prefix, required, received, "Check num_hidden_layers in bert_config.json.")]
    if broken := [v.name for v in encoder.variables if not np.isfinite(v.numpy()).all()]:
        return [Problem(prefix, "hold finite numbers", f"NaN or infinite ones in {', '.join(broken[:3])}")]
    return []


# --- The exporter ---------------------------------------------------------------------------------


def _check_output(output: str) -> None:
    required = "name a new folder, or the folder of an encoder to replace"
    if os.path.islink(output) or os.path.isfile(output):
        raise UserError(Problem("--output", required, f"{output}, a file or a link"))
    other_names = sorted(set(fs.list_names(output)) - {"encoder", "preprocess"}) if fs.is_folder(output) else []
    if other_names:
        raise UserError(Problem("--output", required, f"{output}, which holds {other_names[0]}"))


def _tokenizer_options(imported: ImportedEncoder) -> dict[str, Any]:
    key = "sp_model_file" if imported.vocabulary_file.suffix == ".model" else "vocab_file"
    return {key: str(imported.vocabulary_file), "do_lower_case": imported.lower_case}


def save_encoder(imported: ImportedEncoder, folder: str) -> None:
    """Export an encoder, without its preprocessor, as a SavedModel in the Hub's format to a new local folder."""
    config = encoder_configs.EncoderConfig(type="any")

    class GivenEncoder(hyperparams.Config):  # how the exporter accepts an encoder that has no configuration
        BUILDER = staticmethod(lambda _: imported.encoder)

    config.any = GivenEncoder()
    # In the folder above, where there is space for an encoder.
    with tempfile.TemporaryDirectory(dir=os.path.dirname(folder)) as temporary:
        # The exporter restores a checkpoint into the encoder, and requires the counter that only save() adds to it.
        checkpoint = tf.train.Checkpoint(encoder=imported.encoder, model=imported.encoder)
        export_tfhub_lib.export_model(
            folder,
            encoder_config=config,
            model_checkpoint_path=checkpoint.save(os.path.join(fs.tensorflow_path(temporary), "values")),
            with_mlm=False,
            **_tokenizer_options(imported),
        )


def write_encoder(imported: ImportedEncoder, output: str) -> None:
    """Export an encoder to output/encoder and output/preprocess. It replaces an encoder at `output`.

    A local `output` appears only when it is complete. In a bucket, each saved_model.pb is written last.

    Raises UserError if `output` is a file or a link, or holds anything that does not belong to an encoder, or if the
    export does not compute what imported.reference does; then `output` stays as it is.
    """
    _check_output(output)
    with fs.complete_folder(output) as partial:
        save_encoder(imported, fs.join(partial, "encoder"))
        export_tfhub_lib.export_preprocessing(
            fs.join(partial, "preprocess"),
            tokenize_with_offsets=False,
            default_seq_length=128,
            **_tokenizer_options(imported),
        )
        if imported.reference:
            _check_outputs(fs.join(partial, "encoder"), imported.reference)


def _check_outputs(folder: str, source: Reference) -> None:
    """Raises UserError if an exported encoder does not compute what its source says."""
    saved = saved_models.load_saved_model(folder)
    compute, architecture = functools.partial(reference.compute_outputs, source), source.architecture
    required = f"have, in every layer, what its source gives with NumPy, within {native.TOLERANCE}"
    try:
        difference = native.largest_output_difference(
            saved, compute, architecture.vocab_size, architecture.max_positions
        )
        received = f"a difference of {difference:.1e}"
    except architectures.CannotRebuild as error:  # another number of layers
        difference, received = math.inf, str(error)
    if not difference <= native.TOLERANCE:  # true for NaN too
        raise UserError(Problem("The outputs of the encoder", required, received, "Nothing was written. Report this."))
    _LOG.info("note: every layer's outputs are those of the source, computed with NumPy, within %.1e", difference)
