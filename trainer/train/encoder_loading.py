"""A configuration's encoder: found, loaded, rebuilt natively, or trained through hub.KerasLayer."""

import dataclasses
import logging
import shlex
from typing import Any

import tensorflow as tf
import tf_keras

from trainer.config import loading, schema
from trainer.config.schema import Config
from trainer.data import manifests, tokenization
from trainer.distributed import remote_hosts
from trainer.encoders import architectures, classifier, freezing, native, rebuild_cache, registry, saved_models
from trainer.errors import Problem, UsageError, UserError

_LOG = logging.getLogger(__name__)

# Settings that not every encoder can follow -> what they may be for one that trains through hub.KerasLayer, whose graph
# is as it was saved. Others are refused rather than ignored.
HUB_LAYER_VALUES: dict[str, tuple[Any, ...]] = {
    "precision": ("auto", "float32"),
    "eval_precision": ("auto", "float32"),
    "model.recompute": (False,),
    "model.compile": ("off", "auto"),
    "model.fused": ("off", "auto"),
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
    """Find, load and rebuild the encoder. What was rebuilt before is read from rebuild_cache.

    Raises UserError if it is no encoder, or does not fit the data set, the sequence length or other settings.
    """
    folders = registry.resolve_encoder(config.encoder, need_preprocess=False, mirror=config.encoders.mirror)
    digest = registry.saved_model_sha256(folders.encoder)
    rebuilt = rebuild_cache.find_rebuilt(folders.encoder, digest)
    saved: Any = None if rebuilt else saved_models.load_encoder(folders)
    vocabulary = tokenization.vocabulary_sha256(folders.encoder)
    if vocabulary and vocabulary != manifest.vocabulary.sha256:
        required = f"be prepared with the encoder's own vocabulary ({vocabulary[:12]})"
        prepared = f"{config.data_dir}, prepared with that of {manifest.encoder} ({manifest.vocabulary.sha256[:12]})"
        advice = f"Prepare it again with --encoder={shlex.quote(config.encoder)}, or change --encoder."
        raise UserError(Problem("--data_dir", required, prepared, advice))
    if rebuilt:
        names, own_positions = rebuilt.names, rebuilt.architecture.max_positions
    else:
        variables = native.variables_by_name(list(saved.trainable_variables))
        names, own_positions = list(variables), _count_positions(variables)
    if problems := _find_length_problems(config, own_positions, manifest.max_tokens // 2):
        raise UsageError(*problems)
    if problem := freezing.find_freeze_problem(config.model.freeze, names, config.encoder):
        raise UsageError(problem)
    if rebuilt is None:
        try:
            rebuilt = rebuild_cache.RebuiltEncoder(*native.rebuild_encoder(saved), names)
        except architectures.CannotRebuild as reason:
            _accept_hub_layer(config, saved, folders.place, own_positions, str(reason))
            return LoadedEncoder(config.encoder, digest, None, [], folders.encoder)
        rebuild_cache.keep_rebuilt(folders.encoder, digest, rebuilt)
    if config.model.fused != "off" and not rebuilt.fused_checked:
        native.check_fused_layers(rebuilt.architecture, rebuilt.values)
        rebuilt = dataclasses.replace(rebuilt, fused_checked=True)
        rebuild_cache.keep_rebuilt(folders.encoder, digest, rebuilt)
    architecture = _adapt_architecture(config, rebuilt.architecture)
    return LoadedEncoder(config.encoder, digest, architecture, rebuilt.values, folders.encoder)


def _adapt_architecture(config: Config, architecture: architectures.Architecture) -> architectures.Architecture:
    """With the dropout and the positions that the configuration has, if it has any."""
    rate, positions = config.model.dropout, config.model.max_positions
    if rate is not None:
        architecture = dataclasses.replace(architecture, dropout=rate, attention_dropout=rate)
    return dataclasses.replace(architecture, max_positions=positions) if positions else architecture


def _accept_hub_layer(config: Config, saved: Any, place: str, own_positions: int, reason: str) -> None:
    """Log what training through hub.KerasLayer costs. `reason` is CannotRebuild's. Raises UserError if it cannot be."""
    if problems := find_hub_layer_problems(config, own_positions, reason):
        raise UsageError(*problems) from None
    classifier.check_hub_encoder(saved, place, config.model.pooling)
    costs = "; ".join(_costs_of_hub_layer(saved))
    _LOG.info("note: %s trains through hub.KerasLayer, since %s. That costs: %s.", config.encoder, reason, costs)


def find_hub_layer_problems(config: Config, own_positions: int, reason: str) -> list[Problem]:
    """What of the settings an encoder cannot do that trains through hub.KerasLayer. `reason` is CannotRebuild's."""
    values = dict(schema.flatten(dataclasses.asdict(config)))
    return [
        Problem(
            key,
            f"be {' or '.join(map(loading.format_value, possible))} for an encoder that trains through hub.KerasLayer",
            loading.format_value(values[key]),
            f"{config.encoder} does, since {reason}.",
        )
        for key, possible in {**HUB_LAYER_VALUES, "model.max_positions": ("none", own_positions)}.items()
        if values[key] not in (*possible, None)
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


def _count_positions(variables: dict[str, tf.Variable]) -> int:
    """The most tokens of a sequence. 512 if no variable tells, as BERT has."""
    return next((int(v.shape[0]) for name, v in variables.items() if native.is_position_table(name)), 512)


def _find_length_problems(config: Config, own_positions: int, stored: int) -> list[Problem]:
    """What of the lengths does not suit an encoder of so many positions. `stored` tokens of a text's start are kept."""
    asked, seq_length = config.model.max_positions, config.data.seq_length
    problems = []
    if asked is not None and not own_positions <= asked <= stored:
        required = (
            f"be from the encoder's {own_positions:,} positions to {stored:,}, the tokens that are stored of a text"
        )
        problems.append(Problem("model.max_positions", required, str(asked)))
    positions = asked or own_positions
    if seq_length > positions:
        required = f"be at most the encoder's {positions} positions"
        advice = f"Change it with --data.seq_length={positions}, or raise --model.max_positions."
        problems.append(Problem("data.seq_length", required, str(seq_length), advice))
    return problems


def build_encoder_layer(encoder: LoadedEncoder, precision: str, pooling: str) -> tf_keras.layers.Layer:
    """The encoder as a layer that computes in `precision`, for classifier.pool_tokens with `pooling`.

    Call it in the strategy's scope: there the Hub's SavedModel is loaded again, since its variables belong there.
    """
    if encoder.architecture:
        return classifier.build_native_encoder(encoder.architecture, encoder.values, precision, pooling)
    io_device = remote_hosts.coordinator_device(tf.distribute.get_strategy())
    return classifier.build_hub_encoder(saved_models.load_saved_model(encoder.folder, encoder.name, io_device))
