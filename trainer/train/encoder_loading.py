"""A configuration's encoder: found, loaded, rebuilt natively, or trained through hub.KerasLayer."""

import dataclasses
import logging
import shlex
from typing import Any

import tensorflow as tf
import tf_keras

from trainer.config import schema
from trainer.config.schema import Config
from trainer.data import manifests, tokenization
from trainer.distributed import remote_hosts
from trainer.encoders import architectures, classifier, native, registry, saved_models
from trainer.errors import Problem, UsageError, UserError

_LOG = logging.getLogger(__name__)

# Settings that not every encoder can follow -> what they may be for one that trains through hub.KerasLayer, whose graph
# is as it was saved. Others are refused rather than ignored.
HUB_LAYER_VALUES: dict[str, tuple[Any, ...]] = {
    "precision": ("auto", "float32"),
}


@dataclasses.dataclass(frozen=True)
class LoadedEncoder:
    """An encoder: rebuilt natively, or (architecture None) the Hub's SavedModel in `folder`."""

    name: str
    sha256: str
    architecture: architectures.Architecture | None
    values: list[Any]  # The values of the native encoder's variables.
    folder: str

    @property
    def path(self) -> str:
        return "native" if self.architecture else "hub"


def load_encoder(config: Config, manifest: manifests.Manifest) -> LoadedEncoder:
    """Find, load and rebuild the encoder.

    Raises UserError if it is no encoder, or does not fit the data set, the sequence length or other settings.
    """
    folders = registry.resolve_encoder(config.encoder, preprocess=config.preprocess, need_preprocess=False)
    saved = saved_models.load_encoder(folders)
    vocabulary = tokenization.vocabulary_sha256(folders.encoder)
    if vocabulary and vocabulary != manifest.vocabulary.sha256:
        required = f"be prepared with the encoder's own vocabulary ({vocabulary[:12]})"
        prepared = f"{config.data_dir}, prepared with that of {manifest.encoder} ({manifest.vocabulary.sha256[:12]})"
        advice = f"Prepare it again with --encoder={shlex.quote(config.encoder)}, or change --encoder."
        raise UserError(Problem("--data_dir", required, prepared, advice))
    digest = registry.saved_model_sha256(folders.encoder)
    variables = native.variables_by_name(list(saved.trainable_variables))
    _check_length(config.data.seq_length, variables)
    try:
        architecture, values = native.rebuild_encoder(saved)
    except architectures.CannotRebuild as reason:
        if problems := find_hub_layer_problems(config, str(reason)):
            raise UsageError(*problems) from None
        classifier.check_hub_encoder(saved, folders.place)
        _LOG.info(
            "note: %s trains through hub.KerasLayer, since %s. That costs: %s.",
            config.encoder,
            reason,
            "; ".join(_costs_of_hub_layer(saved)),
        )
        return LoadedEncoder(config.encoder, digest, None, [], folders.encoder)
    rate = config.model.dropout
    if rate is not None:
        architecture = dataclasses.replace(architecture, dropout=rate, attention_dropout=rate)
    return LoadedEncoder(config.encoder, digest, architecture, values, folders.encoder)


def find_hub_layer_problems(config: Config, reason: str) -> list[Problem]:
    """What of the settings an encoder cannot do that trains through hub.KerasLayer. `reason` is CannotRebuild's."""
    values = dict(schema.flatten(dataclasses.asdict(config)))
    return [
        Problem(
            key,
            f"be {' or '.join(map(str, possible))} for an encoder that trains through hub.KerasLayer",
            str(values[key]),
            f"{config.encoder} does, since {reason}.",
        )
        for key, possible in HUB_LAYER_VALUES.items()
        if values[key] not in possible
    ]


def _costs_of_hub_layer(saved: Any) -> list[str]:
    operators = {node.op for body in architectures.function_bodies(saved) for node in body.node_def}
    return [
        "it computes in float32",
        *(
            ["a resumed run is not exact, and model.dropout changes the head alone, as its own dropout has no seed"]
            if "RandomUniform" in operators
            else []
        ),
    ]


def _check_length(seq_length: int, variables: dict[str, tf.Variable]) -> None:
    positions = next((int(v.shape[0]) for name, v in variables.items() if "position_embedding" in name), 512)
    if seq_length > positions:
        required = f"be at most the encoder's {positions} positions"
        advice = f"Change it with --data.seq_length={positions}."
        raise UsageError(Problem("data.seq_length", required, str(seq_length), advice))


def build_encoder_layer(encoder: LoadedEncoder, precision: str) -> tf_keras.layers.Layer:
    """The encoder as a layer that computes in `precision`.

    Call it in the strategy's scope: there the Hub's SavedModel is loaded again, since its variables belong there.
    """
    if encoder.architecture:
        return classifier.build_native_encoder(encoder.architecture, encoder.values, precision)
    io_device = remote_hosts.coordinator_device(tf.distribute.get_strategy())
    return classifier.build_hub_encoder(saved_models.load_saved_model(encoder.folder, encoder.name, io_device))
