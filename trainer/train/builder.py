"""Config -> the parts of a job. What is below train/ takes plain values, not a Config."""

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from trainer.config import loading, schema
from trainer.config.schema import Config
from trainer.data import batching, manifests, model_inputs, records, tasks, tokenization, widths, windows
from trainer.distributed import strategies
from trainer.encoders import classifier, freezing, fused_layers, recomputation, registry, window_pooling
from trainer.errors import Problem, UsageError
from trainer.storage import fs
from trainer.train import averages, compilation, encoder_loading, example_weights, label_use, losses, optimizers
from trainer.train.label_use import LabelUse
from trainer.train.one_pass_adamw import build_one_pass_update, suits_one_pass


@dataclasses.dataclass(frozen=True)
class Parent:
    """The run whose weights another run started from."""

    path: str  # As the user gave it.
    sha256: str  # Of the checkpoint of its weights.


@dataclasses.dataclass(frozen=True)
class StepPlan:
    """How many steps a run has, and how many examples they train on."""

    steps: int
    examples: int
    batch_size: int
    eval_every: int  # steps

    def examples_at(self, step: int) -> int:
        """How many examples have been trained on after `step` steps."""
        return min(step * self.batch_size, self.examples)


@dataclasses.dataclass(frozen=True)
class Job:
    config: Config  # Resolved: none of precision, eval_precision, model.compile and model.fused is "auto".
    manifest: manifests.Manifest
    encoder: encoder_loading.LoadedEncoder
    plan: StepPlan
    layout: model_inputs.BatchLayout
    order: batching.ShuffleOrder
    strategy: tf.distribute.Strategy
    model: tf_keras.Model  # The one that is trained.
    build_eval_model: Callable[[], tf_keras.Model]  # The same one at every call.
    optimizer: tf_keras.optimizers.Optimizer
    update: optimizers.Update  # Of the optimizer, with clipping.
    averages: averages.WeightAverages | None  # Of the weights of `model`, for `eval_model`.
    label_use: LabelUse
    class_weights: np.ndarray | None = None  # float32 [C]. None if all are 1.
    parent: Parent | None = None  # warm_start.start_from_parent sets it.

    @property
    def eval_model(self) -> tf_keras.Model:
        """Evaluates and is exported, in config.eval_precision: `model` itself, if its precision and weights are that.

        Built when it is first needed, since it takes a second of a run's start. All workers have to be there.
        """
        return self.build_eval_model()

    @property
    def trained_variables(self) -> list[tf.Variable]:
        """Those of `model` that the optimizer changes."""
        return _trained_variables(self.config, self.model)

    @property
    def eval_layout(self) -> model_inputs.BatchLayout:
        """That of evaluations, whose batches have any number of rows where nothing compiles a program for each."""
        compiled = compilation.compiles_each_shape(self.config.model.compile, self.strategy)
        return dataclasses.replace(self.layout, fixed_rows=compiled or self.layout.static_width is not None)

    @property
    def static_widths(self) -> tuple[int, ...]:
        """Every width of a batch, where a step has to know it when it is traced. Empty: it takes any."""
        on_tpu = isinstance(self.strategy, tf.distribute.TPUStrategy)
        return widths.list_widths(self.layout.seq_length, self.layout.pad_multiple) if on_tpu else ()

    @functools.cached_property
    def tokenizer(self) -> tokenization.Tokenizer:
        """The one that made the data set's tokens. Loading it takes 2 s."""
        return tokenization.load_tokenizer(fs.join(self.config.data_dir, manifests.PREPROCESS_FOLDER))

    @property
    def metric(self) -> str:
        """The validation metric that selects the best step."""
        return best_metric(self.config, self.manifest)

    @property
    def positive(self) -> int | None:
        """The index of the class that precision, recall and F1 are of. None: they are means over the classes."""
        name = self.label_use.positive_class
        return None if name is None else self.manifest.labels.index(name)

    @property
    def readable_tokens(self) -> int:
        """The most tokens of an example that the model reads, without special ones."""
        windows = self.layout.windows
        content = self.config.data.seq_length - tokenization.special_token_count(self.manifest.texts)
        return windows.covered if windows else content


def best_metric(config: Config, manifest: manifests.Manifest) -> str:
    """The validation metric that selects the best step."""
    return config.training.best_metric or tasks.MAIN_METRIC[manifest.kind]


def find_label_problems(config: Config, manifest: manifests.Manifest) -> list[Problem]:
    """What of the settings for labels does not suit the data set."""
    training = config.training
    return [
        *label_use.find_label_problems(manifest, config.data.positive_class, best_metric(config, manifest)),
        *label_use.find_decision_problems(
            manifest, calibrate=training.calibrate, threshold_metric=training.threshold_metric
        ),
        *example_weights.find_class_weight_problems(training.class_weights, manifest),
        *losses.find_loss_problems(manifest, training.loss, training.label_smoothing),
    ]


def run_fingerprint(config: Config, encoder_sha256: str, data_fingerprint: str, parent: Parent | None = None) -> str:
    """SHA-256 of what must not change between a run and its resumption."""
    keys = schema.fingerprinted(config)
    for key in schema.LATER_KEYS:
        if keys[key] == schema.DEFAULTS[key]:
            del keys[key]
    content = [keys, encoder_sha256, data_fingerprint, *([parent.sha256] if parent else [])]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sink_targets(config: Config) -> dict[str, str]:
    """Key of sink_services.SERVICES -> where the run is logged as well; "" for not at all."""
    return {"mlflow": config.logging.mlflow, "wandb": config.logging.wandb}


def describe_config(config: Config) -> dict[str, Any]:
    """The configuration by key, without what it logs to."""
    keys = schema.flatten(dataclasses.asdict(config))
    return {key: value for key, value in keys if not key.startswith("logging.")}


def check_shards(config: Config, manifest: manifests.Manifest, worker: int = 0, workers: int = 1) -> None:
    """Raises UserError if the size of a shard, or the checksum of one of this worker's share, is not the manifest's."""
    manifests.check_shard_sizes(config.data_dir, manifest)
    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    records.check_shard_checksums(config.data_dir, shards[worker::workers])


def plan_steps(config: Config, examples: int) -> StepPlan:
    """`examples` is the number of examples in the training split."""
    batch, epoch = config.data.batch_size, math.ceil(examples / config.data.batch_size)
    if config.training.steps:
        steps = config.training.steps
        stream = steps * batch
    else:
        stream = math.ceil((config.training.epochs or schema.DEFAULT_EPOCHS) * examples)
        steps = math.ceil(stream / batch)
    return StepPlan(steps, stream, batch, min(config.training.eval_every or epoch, steps))


def shuffle_order(config: Config) -> batching.ShuffleOrder:
    return batching.ShuffleOrder(config.seed, config.data.group_by_length, config.data.shuffle_examples)


def resolve_precision(
    config: Config, encoder: encoder_loading.LoadedEncoder, strategy: tf.distribute.Strategy
) -> Config:
    """`auto` is bfloat16 if every worker's hardware computes in it; for evaluation, if training steps do so as well.

    The Hub's own layer computes in float32 only.
    """
    if not encoder.architecture:
        return dataclasses.replace(config, precision="float32", eval_precision="float32")
    precision: Any = config.precision
    eval_precision: Any = config.eval_precision
    if "auto" in (precision, eval_precision):
        all_reduce_max = strategies.build_all_reduce_max(strategy)
        lacking = all_reduce_max({"lacks bfloat16": not strategies.has_bfloat16(strategy)})
        fast = "float32" if lacking["lacks bfloat16"] else "bfloat16"
        precision = fast if precision == "auto" else precision
        if eval_precision == "auto":
            eval_precision = fast if precision == "bfloat16" else "float32"
    return dataclasses.replace(config, precision=precision, eval_precision=eval_precision)


def resolve_compile(config: Config, encoder: encoder_loading.LoadedEncoder, strategy: tf.distribute.Strategy) -> Config:
    """`auto` of model.compile and of model.fused is as compilation's functions say."""
    native, model = encoder.architecture is not None, config.model
    compiled: Any = compilation.resolve_compile(model.compile, native=native, strategy=strategy)
    fused: Any = compilation.resolve_fused(model.fused, compiled, native=native, strategy=strategy)
    return dataclasses.replace(config, model=dataclasses.replace(model, compile=compiled, fused=fused))


def plan_windows(config: Config) -> windows.Windows | None:
    """How long texts are divided, None if they are truncated. Raises UsageError if that is not possible."""
    if config.data.truncation != windows.TRUNCATION:
        return None
    return windows.plan_windows(config.data.seq_length, config.data.window_stride, config.data.max_windows)


def batch_layout(config: Config, strategy: tf.distribute.Strategy) -> model_inputs.BatchLayout:
    pad_multiple, plan = config.data.pad_multiple, plan_windows(config)
    if plan and isinstance(strategy, tf.distribute.TPUStrategy):
        pad_multiple = config.data.seq_length  # One shape: texts in windows are mostly longer than that.
    elif compilation.compiles_each_shape(config.model.compile, strategy):
        pad_multiple = widths.coarse_pad_multiple(config.data.seq_length, pad_multiple)
    return model_inputs.BatchLayout(
        batch_size=config.data.batch_size,
        seq_length=config.data.seq_length,
        truncation=config.data.truncation,
        pad_multiple=pad_multiple,
        replicas=strategy.num_replicas_in_sync,
        micro_batches=config.training.accumulation_steps,
        windows=plan,
    )


def build_model(
    config: Config, manifest: manifests.Manifest, encoder: encoder_loading.LoadedEncoder, precision: str
) -> tf_keras.Model:
    """A classifier that computes in `precision`, with the encoder's values. Call it in the strategy's scope."""
    layer = encoder_loading.build_encoder_layer(encoder, precision, config.model.pooling)
    if encoder.architecture and config.model.fused == "on":
        fused_layers.install_fused_layers(layer, encoder.architecture)
    if config.model.recompute:
        recomputation.install_recomputation(layer)
    rate = classifier.HEAD_DROPOUT if config.model.dropout is None else config.model.dropout
    model = classifier.build_classifier(layer, manifest.classes or 1, rate, config.seed, config.model.pooling)
    return window_pooling.build_window_classifier(model, config.model.window_pooling) if plan_windows(config) else model


def _trained_variables(config: Config, model: tf_keras.Model) -> list[tf.Variable]:
    return freezing.choose_trained_variables(model.trainable_variables, config.model.freeze, config.model.pooling)


def _build_update(
    config: Config, model: tf_keras.Model, optimizer: tf_keras.optimizers.Optimizer, strategy: tf.distribute.Strategy
) -> optimizers.Update:
    o = config.optimizer
    if config.model.fused == "on" and suits_one_pass(o.name, strategy):
        scales = optimizers.layer_rate_scales(model.trainable_variables, o.layer_decay)
        return build_one_pass_update(optimizer, o.clip_norm, scales)
    return optimizers.build_update(optimizer, o.clip_norm)


def read_job_manifest(config: Config) -> manifests.Manifest:
    """The data set's manifest. Raises UsageError if none is named, or if the configuration does not fit it."""
    if not config.data_dir:
        raise UsageError(Problem("--data_dir", "name a prepared data set", "none"))
    manifest = manifests.read_manifest(config.data_dir)
    if config.task not in (None, manifest.task):
        required = f"be the data set's, {manifest.task}"
        raise UsageError(Problem("task", required, config.task or "none", "Change --task or --data_dir."))
    if plan_windows(config) and manifest.texts == 2:
        required = "be head, tail or head_tail for pairs of texts"
        advice = "Of a pair, it is not known which text the windows should be of."
        raise UsageError(Problem("data.truncation", required, config.data.truncation, advice))
    return manifest


def job_signature(config: Config, parent: Parent | None = None) -> dict[str, Any]:
    """What must be the same on every worker, by name: the configuration; data, encoder and parent by their content."""
    folders = registry.resolve_encoder(config.encoder, need_preprocess=False, mirror=config.encoders.mirror)
    return {
        **schema.fingerprinted(config),
        "model.fused": config.model.fused,
        "the data set": read_job_manifest(config).fingerprint,
        "the encoder": registry.saved_model_sha256(folders.encoder),
        "the weights of --init_from": parent.sha256 if parent else "none",
    }


def build_job(config: Config, strategy: tf.distribute.Strategy, started: LabelUse | None = None) -> Job:
    """Everything that a run, an evaluation or an export needs. The data set is checked.

    `started` is the label use of a run that has started. Raises UserError for what does not fit, before anything is
    written.
    """
    manifest = read_job_manifest(config)
    if not started:  # Other data of an evaluation need not suit the metric that selected the best.
        problems = find_label_problems(config, manifest)
        if problems:
            raise UsageError(*problems)
    loading.check_replicas(config, strategy.num_replicas_in_sync, manifest.splits["train"].examples)
    check_shards(config, manifest, *strategies.worker_index_and_count(strategy))
    use = started or label_use.choose_label_use(config.data_dir, manifest, config.data.positive_class)
    if not started and (problems := label_use.find_rating_problems(manifest, use, best_metric(config, manifest))):
        raise UsageError(*problems)
    encoder = encoder_loading.load_encoder(config, manifest)
    config = resolve_compile(resolve_precision(config, encoder, strategy), encoder, strategy)
    steps = plan_steps(config, manifest.splits["train"].examples)
    o = config.optimizer
    with strategy.scope():
        trained = build_model(config, manifest, encoder, config.precision)
        build_optimizer = optimizers.OPTIMIZERS[o.name]
        optimizer = build_optimizer(o.learning_rate, steps.steps, o.warmup_fraction, o.weight_decay)
        if o.layer_decay < 1:
            optimizers.decay_layer_rates(optimizer, trained.trainable_variables, o.layer_decay)
        optimizers.create_slots(optimizer, _trained_variables(config, trained))
        weight_averages = averages.create_averages(trained, o.ema) if o.ema else None

    @functools.cache
    def build_eval_model() -> tf_keras.Model:
        if config.precision == config.eval_precision and not o.ema:
            return trained
        with strategy.scope():
            return build_model(config, manifest, encoder, config.eval_precision)

    return Job(
        config=config,
        manifest=manifest,
        encoder=encoder,
        plan=steps,
        layout=batch_layout(config, strategy),
        order=shuffle_order(config),
        strategy=strategy,
        model=trained,
        build_eval_model=build_eval_model,
        optimizer=optimizer,
        update=_build_update(config, trained, optimizer, strategy),
        averages=weight_averages,
        label_use=use,
        class_weights=example_weights.choose_class_weights(config.training.class_weights, manifest),
    )
