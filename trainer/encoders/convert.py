"""Make Hub-format encoder/ and preprocess/ SavedModels from weights in other formats.

Each reader returns a Source: an encoder of official.nlp with its values, and the vocabulary it was
trained with. `write` exports it through official.nlp's own exporter, the one that made the Hub's
encoders, so that whatever works with the result works with the Hub's.
"""

import dataclasses
import json
import math
import os
import tempfile
from collections.abc import Mapping
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
from trainer.storage import fs


@dataclasses.dataclass(frozen=True)
class Source:
    encoder: tf_keras.Model | tf_keras.layers.Layer
    vocabulary_file: Path  # WordPiece's vocab.txt or SentencePiece's *.model
    lower_case: bool


# --- BERT weights from Hugging Face's files or TensorFlow's checkpoints ---------------------------

# official.nlp's name of a variable, without its kind -> the name in Google's checkpoints of 2018.
# Hugging Face's names are those with dots, and its kernels are transposed.
_NAMES = {
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
    return layer + _NAMES[path] + ("" if kind == "embeddings" else f"/{kind}")


def hugging_face_name(name: str) -> str:
    """`transformer/layer_3/output/kernel` -> `encoder.layer.3.output.dense.weight`."""
    dotted = google_name(name).replace("layer_", "layer.").replace("/", ".")
    if name.endswith("/embeddings"):
        return dotted + ".weight"
    path, kind = dotted.rsplit(".", 1)
    return f"{path}.{ {'kernel': 'weight', 'gamma': 'weight', 'beta': 'bias', 'bias': 'bias'}[kind] }"


SIZES = (
    "attention_probs_dropout_prob",
    "hidden_act",
    "hidden_dropout_prob",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "type_vocab_size",
    "vocab_size",
)


def _bert(path: Path) -> tf_keras.Model:
    """A BertEncoder of the sizes in a bert_config.json or a Hugging Face config.json."""
    config = _read_json(path)
    missing = sorted(set(SIZES) - set(config))
    if missing:
        raise ValueError(f"{path} must give a BERT's sizes. Received: one without {', '.join(missing)}.")
    # Hugging Face's "gelu" is the exact one; Google's checkpoints were trained with the tanh form.
    hugging_face = config.get("model_type") == "bert"
    kind = config["hidden_act"]
    if kind not in ("gelu", "gelu_new"):
        raise ValueError(f"The encoder's hidden_act must be gelu or gelu_new. Received: {kind}.")
    exact = hugging_face and kind == "gelu"
    return networks.BertEncoder(
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        num_layers=config["num_hidden_layers"],
        num_attention_heads=config["num_attention_heads"],
        inner_dim=config["intermediate_size"],
        inner_activation=native.ACTIVATIONS["gelu" if exact else "gelu_tanh"],
        max_sequence_length=config["max_position_embeddings"],
        type_vocab_size=config["type_vocab_size"],
        output_dropout=config["hidden_dropout_prob"],
        attention_dropout=config["attention_probs_dropout_prob"],
        initializer=tf_keras.initializers.TruncatedNormal(stddev=config["initializer_range"]),
        dict_outputs=True,
    )


def _assign(
    encoder: tf_keras.Model, values: Mapping[str, np.ndarray], name_of: Any, transposed: bool, where: Path
) -> None:
    """Give every variable its value; a kernel of [in, heads * size] becomes [in, heads, size]."""
    names = {v.name: name_of(native.canonical_name(v.name)) for v in encoder.trainable_variables}
    missing = sorted(set(names.values()) - set(values))
    if missing:
        raise ValueError(
            f"{where} must hold the weights of a whole BERT encoder. Received: one without {', '.join(missing[:3])}."
        )
    for variable in encoder.trainable_variables:
        name, shape = names[variable.name], _stored_shape(variable)
        value = values[name]
        if transposed and variable.name.endswith("kernel:0"):
            value = value.T
        if value.shape != shape:
            raise ValueError(
                f"{name} in {where} must have the shape {shape} that the sizes beside it give. Received: {value.shape}."
            )
        variable.assign(value.reshape(variable.shape))


def _stored_shape(variable: tf.Variable) -> tuple[int, ...]:
    """The variable's shape where heads are not an axis of their own: [in, heads, size] is [in, heads * size] there."""
    shape = tuple(variable.shape)
    if "self_attention/" not in variable.name:
        return shape
    if variable.name.endswith("attention_output/kernel:0"):
        return (math.prod(shape[:-1]), shape[-1])
    return (shape[0], math.prod(shape[1:])) if variable.name.endswith("kernel:0") else (math.prod(shape),)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"--source must name a folder with {path.name}. Received: {path.parent}, which has none.")
    try:
        loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must hold JSON. Received: a file that does not parse ({error}).") from None
    return loaded


def _vocabulary_file(folder: Path) -> Path:
    path = folder / "vocab.txt"
    if not path.is_file():
        raise ValueError(f"--source must name a folder with vocab.txt beside the weights. Received: {folder}.")
    return path


def read_hugging_face(folder: Path) -> Source:
    """Reads config.json, model.safetensors and vocab.txt of a Hugging Face BERT."""
    config = _read_json(folder / "config.json")
    if config.get("model_type") != "bert":
        raise ValueError(f"{folder} must hold a model of type bert. Received: {config.get('model_type')!r}.")
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ValueError(f"--source=hf:DIR needs model.safetensors in DIR. Received: {folder}, which has none.")
    values = {name.removeprefix("bert."): v for name, v in safetensors.numpy.load_file(weights).items()}
    values = {
        n.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"): v
        for n, v in values.items()
    }
    encoder = _bert(folder / "config.json")
    _assign(encoder, values, hugging_face_name, transposed=True, where=weights)
    tokenizer = folder / "tokenizer_config.json"
    lower_case = json.loads(tokenizer.read_text()).get("do_lower_case", True) if tokenizer.is_file() else True
    return Source(encoder, _vocabulary_file(folder), lower_case)


def read_checkpoint(folder: Path) -> Source:
    """Reads bert_config.json, a checkpoint (Google's of 2018, or one of tf-models-official) and vocab.txt."""
    encoder = _bert(folder / "bert_config.json")
    indexes = sorted(folder.glob("*.index"))
    if len(indexes) != 1:
        raise ValueError(
            f"--source=checkpoint:DIR needs one checkpoint (*.index) in DIR. Received: {folder} with {len(indexes)}."
        )
    prefix = str(indexes[0].with_suffix(""))
    reader = tf.train.load_checkpoint(prefix)
    if "_CHECKPOINTABLE_OBJECT_GRAPH" in reader.get_variable_to_shape_map():
        try:
            tf.train.Checkpoint(encoder=encoder, model=encoder).restore(
                prefix
            ).assert_existing_objects_matched().expect_partial()
        except AssertionError as error:
            raise ValueError(
                f"{prefix} must hold a BertEncoder under 'encoder' or 'model'. Received: {str(error)[:200]}"
            ) from None
    else:
        values = {name.removeprefix("bert/"): reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
        _assign(encoder, values, google_name, transposed=False, where=Path(prefix))
    vocabulary_file = _vocabulary_file(folder)
    # Google's cased and uncased vocabularies differ in this: only a cased one has capitals.
    cased = any(
        piece != piece.lower()
        for piece in vocabulary_file.read_text(encoding="utf-8").split()
        if not piece.startswith("[")
    )
    return Source(encoder, vocabulary_file, lower_case=not cased)


# --- Out ------------------------------------------------------------------------------------------


def write_encoder(source: Source, output: str) -> None:
    """Export `source` as output/encoder and output/preprocess; a local `output` appears only when whole, and one in a
    bucket has its saved_model.pb last.

    Raises ValueError if `output` is a file or a link, or holds anything that is not an encoder's.
    """
    if os.path.islink(output) or os.path.isfile(output):
        raise ValueError(
            f"--output must name a new folder, or that of an encoder to replace. Received: {output}, which is none."
        )
    foreign = sorted(set(fs.list_names(output)) - {"encoder", "preprocess"}) if fs.is_folder(output) else []
    if foreign:
        raise ValueError(
            "--output must name a new folder, or that of an encoder to replace. "
            f"Received: {output}, which holds {foreign[0]}."
        )
    config = encoder_configs.EncoderConfig(type="any")

    class Built(hyperparams.Config):  # how the exporter is given an encoder that it has no configuration for
        BUILDER = staticmethod(lambda _: source.encoder)

    config.any = Built()
    key = "sp_model_file" if source.vocabulary_file.suffix == ".model" else "vocab_file"
    vocabulary_flag = {key: str(source.vocabulary_file)}
    beside = None if fs.in_bucket(output) else os.path.dirname(os.path.abspath(output))
    if beside:
        fs.make_folder(beside)
    with tempfile.TemporaryDirectory(dir=beside, prefix=".encoder-") as temporary:
        whole = os.path.join(temporary, "whole")
        # The exporter restores a checkpoint into the encoder; it asserts on the counter that save(), not write(), adds.
        values = tf.train.Checkpoint(encoder=source.encoder, model=source.encoder).save(
            os.path.join(temporary, "values")
        )
        export_tfhub_lib.export_model(
            f"{whole}/encoder",
            encoder_config=config,
            model_checkpoint_path=values,
            with_mlm=False,
            do_lower_case=source.lower_case,
            **vocabulary_flag,
        )
        export_tfhub_lib.export_preprocessing(
            f"{whole}/preprocess",
            do_lower_case=source.lower_case,
            tokenize_with_offsets=False,
            default_seq_length=128,
            **vocabulary_flag,
        )
        fs.replace_folder(whole, output)
