"""BERT weights of other formats as encoders of official.nlp, with the vocabularies that they were trained with."""

import dataclasses
import logging
import os
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras
from official.nlp.modeling import networks

from trainer.encoders import (
    architectures,
    bert_configs,
    builders,
    native,
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
