"""Convert BERT weights of other formats to SavedModels in the Hub's format, encoder/ and preprocess/.

Each reader returns an ImportedEncoder: an encoder of official.nlp with its values, and the vocabulary it was trained
with. `write_encoder` exports it with official.nlp's own exporter, which made the Hub's encoders, so that whatever works
with the Hub's encoders works with the result.
"""

import dataclasses
import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import tensorflow as tf
import tf_keras
from official.modeling import hyperparams
from official.nlp.configs import encoders as encoder_configs
from official.nlp.modeling import networks
from official.nlp.tools import export_tfhub_lib

from trainer.encoders import native
from trainer.errors import Problem, UserError
from trainer.storage import fs


@dataclasses.dataclass(frozen=True)
class ImportedEncoder:
    """An encoder with its values, and what its preprocessor needs."""

    encoder: tf_keras.Model | tf_keras.layers.Layer
    vocabulary_file: Path  # WordPiece's vocab.txt or SentencePiece's *.model.
    lower_case: bool


# --- Names and sizes ------------------------------------------------------------------------------

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


# An argument of official.nlp's BertEncoder -> its key in bert_config.json and in Hugging Face's config.json.
_SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "inner_dim": "intermediate_size",
    "max_sequence_length": "max_position_embeddings",
    "type_vocab_size": "type_vocab_size",
    "output_dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(Problem(str(path), "hold JSON", f"a file that does not parse ({error})")) from None
    return loaded


def _require_files(folder: Path, source: str, *names: str) -> None:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UserError(*(Problem(source, f"name a folder with {name}", f"{folder}, without it") for name in missing))


def _build_bert(path: Path) -> tf_keras.Model:
    """A BertEncoder with the sizes in `path`: bert_config.json, or Hugging Face's config.json."""
    config = _read_json(path)
    missing = [key for key in (*_SIZES.values(), "hidden_act", "initializer_range") if key not in config]
    if missing:
        raise UserError(Problem(str(path), "give every size of a BERT encoder", f"no {', '.join(missing)}"))
    if config["hidden_act"] not in ("gelu", "gelu_new"):
        raise UserError(Problem(f"hidden_act in {path}", "be gelu or gelu_new", config["hidden_act"]))
    # In Hugging Face's files "gelu" has the error function. Google's checkpoints were trained with the tanh form.
    exact_gelu = config.get("model_type") == "bert" and config["hidden_act"] == "gelu"
    return networks.BertEncoder(
        **{argument: config[key] for argument, key in _SIZES.items()},
        inner_activation=native.ACTIVATIONS["gelu" if exact_gelu else "gelu_tanh"],
        initializer=tf_keras.initializers.TruncatedNormal(stddev=config["initializer_range"]),
        dict_outputs=True,
    )


# --- Readers --------------------------------------------------------------------------------------


def _assign_values(
    encoder: tf_keras.Model,
    values: Mapping[str, np.ndarray],
    name_in_file: Callable[[str], str],
    transposed: bool,
    file: Path,
) -> None:
    """Assign to every variable its value in `values`, where a kernel [in, heads, size] is [in, heads * size].

    `transposed` kernels are [heads * size, in]. `name_in_file` turns a canonical name into a key of `values`.
    """
    names = {v.name: name_in_file(native.canonical_name(v.name)) for v in encoder.trainable_variables}
    missing = sorted(set(names.values()) - set(values))
    if missing:
        raise UserError(Problem(str(file), "hold all weights of a BERT encoder", f"no {', '.join(missing[:3])}"))
    for variable in encoder.trainable_variables:
        name, shape = names[variable.name], _stored_shape(variable)
        value = values[name]
        if transposed and variable.name.endswith("kernel:0"):
            value = value.T
        if value.shape != shape:
            raise UserError(
                Problem(
                    f"{name} in {file}", f"have the shape {shape} that the configuration's sizes give", str(value.shape)
                )
            )
        variable.assign(value.reshape(variable.shape))


def _stored_shape(variable: tf.Variable) -> tuple[int, ...]:
    """The variable's shape in files, where the heads of attention are not an axis of their own."""
    shape = tuple(variable.shape)
    if "self_attention/" not in variable.name:
        return shape
    if variable.name.endswith("attention_output/kernel:0"):
        return (math.prod(shape[:-1]), shape[-1])
    return (shape[0], math.prod(shape[1:])) if variable.name.endswith("kernel:0") else (math.prod(shape),)


def read_hugging_face(folder: Path) -> ImportedEncoder:
    """Read config.json, model.safetensors, vocab.txt and, if it exists, tokenizer_config.json of a Hugging Face BERT.

    Raises UserError with every missing file, or with what the files must hold.
    """
    _require_files(folder, "--source=hf:DIR", "config.json", "model.safetensors", "vocab.txt")
    model_type = _read_json(folder / "config.json").get("model_type")
    if model_type != "bert":
        raise UserError(Problem(f"model_type in {folder / 'config.json'}", "be bert", str(model_type)))
    weights = folder / "model.safetensors"
    values = {
        name.removeprefix("bert.")
        .replace("LayerNorm.gamma", "LayerNorm.weight")
        .replace("LayerNorm.beta", "LayerNorm.bias"): value
        for name, value in safetensors.numpy.load_file(weights).items()
    }
    encoder = _build_bert(folder / "config.json")
    _assign_values(encoder, values, hugging_face_name, transposed=True, file=weights)
    tokenizer = folder / "tokenizer_config.json"
    lower_case = _read_json(tokenizer).get("do_lower_case", True) if tokenizer.is_file() else True
    return ImportedEncoder(encoder, folder / "vocab.txt", lower_case)


def read_checkpoint(folder: Path) -> ImportedEncoder:
    """Read bert_config.json, vocab.txt and a checkpoint: one of Google's of 2018, or of tf-models-official.

    Raises UserError with every missing file, or with what the files must hold.
    """
    _require_files(folder, "--source=checkpoint:DIR", "bert_config.json", "vocab.txt")
    indexes = sorted(folder.glob("*.index"))
    if len(indexes) != 1:
        raise UserError(
            Problem("--source=checkpoint:DIR", "name a folder with one *.index file", f"{folder} with {len(indexes)}")
        )
    encoder = _build_bert(folder / "bert_config.json")
    prefix = str(indexes[0].with_suffix(""))
    readable_prefix = os.path.join(fs.tensorflow_path(str(folder)), indexes[0].stem)
    reader = tf.train.load_checkpoint(readable_prefix)
    if "_CHECKPOINTABLE_OBJECT_GRAPH" in reader.get_variable_to_shape_map():
        status = tf.train.Checkpoint(encoder=encoder, model=encoder).restore(readable_prefix)
        try:
            status.assert_existing_objects_matched().expect_partial()
        except AssertionError as error:
            raise UserError(
                Problem(prefix, "hold a BertEncoder under the name encoder or model", str(error)[:200])
            ) from None
    else:
        values = {name.removeprefix("bert/"): reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
        _assign_values(encoder, values, google_name, transposed=False, file=Path(prefix))
    vocabulary_file = folder / "vocab.txt"
    # No file says whether Google's vocabularies are cased. Only those that are have capitals.
    cased = any(
        piece != piece.lower()
        for piece in vocabulary_file.read_text(encoding="utf-8").split()
        if not piece.startswith("[")
    )
    return ImportedEncoder(encoder, vocabulary_file, lower_case=not cased)


# --- The exporter ---------------------------------------------------------------------------------


def _check_output(output: str) -> None:
    required = "name a new folder, or the folder of an encoder to replace"
    if os.path.islink(output) or os.path.isfile(output):
        raise UserError(Problem("--output", required, f"{output}, a file or a link"))
    other_names = sorted(set(fs.list_names(output)) - {"encoder", "preprocess"}) if fs.is_folder(output) else []
    if other_names:
        raise UserError(Problem("--output", required, f"{output}, which holds {other_names[0]}"))


def write_encoder(imported: ImportedEncoder, output: str) -> None:
    """Export an encoder to output/encoder and output/preprocess. It replaces an encoder at `output`.

    A local `output` appears only when it is complete. In a bucket, each saved_model.pb is written last.

    Raises UserError if `output` is a file or a link, or holds anything that does not belong to an encoder.
    """
    _check_output(output)
    config = encoder_configs.EncoderConfig(type="any")

    class GivenEncoder(hyperparams.Config):  # how the exporter accepts an encoder that has no configuration
        BUILDER = staticmethod(lambda _: imported.encoder)

    config.any = GivenEncoder()
    key = "sp_model_file" if imported.vocabulary_file.suffix == ".model" else "vocab_file"
    tokenizer_options = {key: str(imported.vocabulary_file), "do_lower_case": imported.lower_case}
    # In the same file system as a local output, so that a rename puts it in place.
    parent = None if fs.in_bucket(output) else os.path.dirname(os.path.abspath(output))
    if parent:
        fs.make_folder(parent)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".encoder-") as temporary:
        complete = os.path.join(temporary, "complete")
        # The exporter restores a checkpoint into the encoder, and requires the counter that only save() adds to it.
        checkpoint = tf.train.Checkpoint(encoder=imported.encoder, model=imported.encoder)
        export_tfhub_lib.export_model(
            f"{complete}/encoder",
            encoder_config=config,
            model_checkpoint_path=checkpoint.save(os.path.join(fs.tensorflow_path(temporary), "values")),
            with_mlm=False,
            **tokenizer_options,
        )
        export_tfhub_lib.export_preprocessing(
            f"{complete}/preprocess", tokenize_with_offsets=False, default_seq_length=128, **tokenizer_options
        )
        fs.replace_folder(complete, output)
