"""What a configuration holds: frozen dataclasses with types, defaults and documentation for each key."""

import dataclasses
import functools
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BeforeValidator, Field
from pydantic.fields import FieldInfo

from trainer.config.value_types import (
    ClassWeights,
    Fraction,
    Freeze,
    Integer,
    Metric,
    Number,
    PositiveInteger,
    PositiveNumber,
    SinkTarget,
)

CONFIG_FILE = "config.yaml"  # In a model_dir.
DEFAULT_EPOCHS = 3.0
_STRICT = pydantic.ConfigDict(extra="forbid")


def _doc(description: str) -> FieldInfo:
    """The documentation of a key, which --help and docs/configuration.md show."""
    info: FieldInfo = Field(description=description)
    return info


@dataclasses.dataclass(frozen=True)
class DataConfig:
    __pydantic_config__ = _STRICT
    seq_length: Annotated[
        Integer,
        Field(ge=3),
        _doc("The maximum length in tokens, with special tokens. data.truncation says what is kept of longer texts."),
    ] = 128
    truncation: Annotated[
        Literal["head", "tail", "head_tail", "windows"],
        _doc("What is kept of a longer text: its start, its end, half of each, or several windows of data.seq_length."),
    ] = "head"
    window_stride: Annotated[
        PositiveInteger | None,
        _doc("The number of tokens from one window's start to the next. If unset, three quarters of its content."),
    ] = None
    max_windows: Annotated[
        PositiveInteger, _doc("The maximum number of windows of a text. The middle of a longer text is dropped.")
    ] = 4
    batch_size: Annotated[PositiveInteger, _doc("The number of examples in a step, over all replicas.")] = 32
    group_by_length: Annotated[bool, _doc("Make batches of texts of similar length, which need less padding.")] = True
    pad_multiple: Annotated[
        PositiveInteger, _doc("Pad a batch to its longest text, rounded up to a multiple of this many tokens.")
    ] = 16
    shuffle_examples: Annotated[
        PositiveInteger, _doc("The number of examples that are shuffled together. They are held in memory.")
    ] = 1 << 18
    positive_class: Annotated[
        str,
        _doc("The class of precision, recall, F1 and average precision. If unset, the rarer of two in train."),
    ] = ""


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    __pydantic_config__ = _STRICT
    epochs: Annotated[
        PositiveNumber | None,
        _doc(f"The number of passes over the train split. If unset, {DEFAULT_EPOCHS:g}, unless training.steps is set."),
    ] = None
    steps: Annotated[PositiveInteger | None, _doc("The number of optimizer steps, instead of training.epochs.")] = None
    class_weights: Annotated[
        ClassWeights,
        _doc(
            "The weight of each class's examples in the loss: balanced, so that all classes weigh the same, or weights "
            "by label, such as {spam: 10}. A label that is left out has the weight 1."
        ),
    ] = None
    loss: Annotated[
        Literal["cross_entropy", "focal"], _doc("The loss for classes. focal gives easy examples less weight.")
    ] = "cross_entropy"
    focal_gamma: Annotated[
        Number, Field(ge=0, le=10), _doc("The gamma of the focal loss. A larger one gives easy examples less weight.")
    ] = 2.0
    label_smoothing: Annotated[
        Fraction, _doc("The share of a label that the loss divides among all classes, in training only.")
    ] = 0.0
    accumulation_steps: Annotated[
        PositiveInteger,
        _doc("The number of micro-batches of a replica's batch. More need less memory, with the same result."),
    ] = 1
    log_every: Annotated[PositiveInteger, _doc("The number of steps between two train lines of metrics.jsonl.")] = 20
    save_every: Annotated[PositiveInteger, _doc("The number of steps between two checkpoints.")] = 500
    eval_every: Annotated[
        PositiveInteger | None, _doc("The number of steps between two evaluations on validation. If unset, an epoch.")
    ] = None
    best_metric: Annotated[
        Metric | None,
        _doc(
            "The validation metric that selects the best step. If unset, accuracy for classes, pearson for numbers, "
            "and micro_f1 for several labels a text."
        ),
    ] = None
    patience: Annotated[
        PositiveInteger | None,
        _doc("Stop training after this many evaluations in a row without a better one. If unset, never."),
    ] = None
    calibrate: Annotated[
        bool,
        _doc("Export probabilities calibrated by a temperature, fitted on validation. The labels stay the same."),
    ] = False
    threshold_metric: Annotated[
        Literal["f1", "macro_f1", "accuracy", "balanced_accuracy"] | None,
        _doc(
            "The metric on validation that the threshold is chosen for, the probability above which a text is of the "
            "positive class. If unset, the threshold is 0.5, and f1 chooses those of several labels a text."
        ),
    ] = None
    keep_checkpoints: Annotated[Integer, Field(ge=3), _doc("The number of newest checkpoints to keep.")] = 3
    background_saves: Annotated[
        bool | None, _doc("Write checkpoints while training continues. If unset, on a GPU or a TPU only.")
    ] = None


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    __pydantic_config__ = _STRICT
    name: Annotated[
        Literal["adamw", "lamb"],
        _doc("The optimizer. lamb scales the step of each variable to its norm, for batches of thousands of examples."),
    ] = "adamw"
    learning_rate: Annotated[
        PositiveNumber, _doc("The learning rate that the linear decay starts from, after a linear warm-up from 0.")
    ] = 1e-4
    warmup_fraction: Annotated[Fraction, _doc("The share of the steps in which the learning rate rises from 0.")] = 0.1
    weight_decay: Annotated[Number, Field(ge=0), _doc("The weight decay. Biases and layer norms have none.")] = 0.01
    clip_norm: Annotated[
        PositiveNumber, _doc("The largest norm of all gradients together. Larger gradients are scaled down to it.")
    ] = 1.0
    layer_decay: Annotated[
        Number,
        Field(gt=0, le=1),
        _doc("The ratio of a layer's learning rate to that of the layer above. The head has optimizer.learning_rate."),
    ] = 1.0
    ema: Annotated[
        Fraction,
        _doc(
            "The decay of an exponential moving average of the weights, such as 0.999, which is evaluated and exported "
            "in the place of the last weights. With 0, there is none."
        ),
    ] = 0.0


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    __pydantic_config__ = _STRICT
    dropout: Annotated[
        Fraction | None,
        _doc("The dropout rate of head and encoder. If unset, the encoder's own, and 0.1 in the head."),
    ] = None
    max_positions: Annotated[
        PositiveInteger | None,
        _doc("The number of positions. More than the encoder has are made by repeating its own. If unset, its own."),
    ] = None
    freeze: Annotated[
        Freeze,
        _doc(
            "What is not trained: none, embeddings, layers:N (the embeddings and the first N layers), or encoder (all "
            "but the head)."
        ),
    ] = "none"
    pooling: Annotated[
        Literal["pooled", "first", "mean"],
        _doc(
            "What the head sees of a text: the first token's output after the encoder's pooler, the first token's "
            "output without it, or the mean of all tokens' outputs."
        ),
    ] = "pooled"
    window_pooling: Annotated[
        Literal["mean", "max"], _doc("How a text's logits are made of those of its windows (data.truncation=windows).")
    ] = "mean"
    recompute: Annotated[
        bool,
        _doc(
            "Compute the activations of each encoder layer again in the backward pass instead of keeping them. This "
            "needs less memory and more time, with the same gradients."
        ),
    ] = False
    fused: Annotated[
        Literal["auto", "off", "on"],
        BeforeValidator(lambda value: {False: "off", True: "on"}.get(value, value)),  # As YAML reads `off` and `on`.
        _doc(
            "Compute encoder layers, and AdamW of large variables, by few operations, with the same results but for "
            "rounding. auto does so on a CPU. Each width of a batch is compiled once. Exports have plain layers."
        ),
    ] = "off"
    compile: Annotated[
        Literal["auto", "off", "xla"],
        BeforeValidator(lambda value: "off" if value is False else value),  # As YAML reads `off`.
        _doc(
            "Compile training and evaluation with XLA. auto does so on a GPU. Batches then have at most four widths, "
            "each of which is compiled once. On a TPU, XLA compiles in any case."
        ),
    ] = "off"


@dataclasses.dataclass(frozen=True)
class EncodersConfig:
    __pydantic_config__ = _STRICT
    mirror: Annotated[
        str,
        _doc(
            "A folder in which encoders of the Hub and Kaggle are looked up before they are downloaded. "
            "scripts/import_encoder.py --source=hub:NAME fills it."
        ),
    ] = ""


@dataclasses.dataclass(frozen=True)
class LoggingConfig:
    __pydantic_config__ = _STRICT
    tensorboard: Annotated[bool, _doc("Write TensorBoard's events.")] = True
    progress: Annotated[bool, _doc("Show a progress bar on standard error.")] = True
    mlflow: Annotated[
        SinkTarget,
        _doc("Also log to MLflow: a tracking URI, or on for MLflow's own setting. This needs hubtune[mlflow]."),
    ] = ""
    wandb: Annotated[
        SinkTarget,
        _doc("Also log to Weights & Biases: a project, or on for the project hubtune. This needs hubtune[wandb]."),
    ] = ""
    report: Annotated[bool, _doc("Write report.html and model_card.md at the end of a run.")] = True
    peak_flops: Annotated[
        PositiveNumber | None,
        _doc("The FLOPs per second of a device, which mfu is a share of. If unset, those of a known GPU."),
    ] = None


@dataclasses.dataclass(frozen=True)
class Config:
    __pydantic_config__ = _STRICT
    task: Annotated[str | None, _doc("The name of the data set. If set, any other data set is refused.")] = None
    encoder: Annotated[str, _doc("The encoder: a name, a Hub or Kaggle handle, or a folder.")] = "minilm"
    preprocess: Annotated[
        str, _doc("The encoder's preprocessor, a handle or a folder, if the encoder does not come with one.")
    ] = ""
    seed: Annotated[
        Integer, Field(ge=0, lt=1 << 31), _doc("The seed of batch order, dropout and the head's first weights.")
    ] = 0
    precision: Annotated[
        Literal["float32", "bfloat16", "auto"],
        _doc("The type that training steps compute in. auto is bfloat16 where the hardware computes in it."),
    ] = "float32"
    eval_precision: Annotated[
        Literal["float32", "bfloat16", "auto"],
        _doc(
            "The type that evaluation, test and the export compute in. auto is bfloat16 where training steps and the "
            "hardware compute in it."
        ),
    ] = "float32"
    data_dir: Annotated[str, _doc("The folder of a prepared data set.")] = ""
    init_from: Annotated[
        str,
        _doc("The run whose weights a new run starts from: its model_dir, its best/ or its export."),
    ] = ""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    encoders: EncodersConfig = dataclasses.field(default_factory=EncodersConfig)
    logging: LoggingConfig = dataclasses.field(default_factory=LoggingConfig)


# The keys that name a path. Those of URL_KEYS may also name an http:// or https:// address.
PATH_KEYS = ("data_dir", "encoder", "preprocess", "init_from", "encoders.mirror")
URL_KEYS = ("encoder", "preprocess")
# What may be given with a run whose configuration is its own: where files are now, what is shown, how it is computed.
REPLACEABLE_KEYS = ("task", "logging.progress", "model.fused", *(key for key in PATH_KEYS if key != "init_from"))

# What may differ between a run and its resumption. The encoder, the data and the parent are compared by their content.
# data.positive_class may not: precision, F1 and what they select would be of two classes in one metrics.jsonl.
# model.fused may, as the devices may: only the rounding is another.
NOT_FINGERPRINTED = ("data_dir", "encoder", "preprocess", "init_from", "encoders.", "logging.", "model.fused")

# Keys whose value is a mapping, and no section.
MAPPING_KEYS = ("training.class_weights",)

# A run from before one of these existed resumes with it at its default.
LATER_KEYS = (
    *("data.window_stride", "data.max_windows", "model.window_pooling"),
    *("training.class_weights", "training.loss", "training.focal_gamma", "training.label_smoothing"),
    *("training.patience", "training.calibrate", "training.threshold_metric"),
    *("optimizer.layer_decay", "optimizer.ema"),
    *("model.recompute", "model.compile", "optimizer.name"),
    *("model.pooling", "model.freeze", "model.max_positions"),
    "eval_precision",
)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """{"data": {"seq_length": 128}} -> ("data.seq_length", 128)."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and f"{prefix}{key}" not in MAPPING_KEYS:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def get_values(config: Config, keys: Sequence[str]) -> dict[str, Any]:
    """The values of some keys, each "key" or "section.key"."""
    return {key: functools.reduce(getattr, key.split("."), config) for key in keys}


def replace_values(config: Config, values: Mapping[str, Any]) -> Config:
    """The configuration with other values of these keys, each "key" or "section.key"."""
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        changed = dataclasses.replace(getattr(config, section), **{name: value}) if section else value
        config = dataclasses.replace(config, **{section or name: changed})
    return config


def fingerprinted(config: Config) -> dict[str, Any]:
    """The keys that must not differ between a run and its resumption, with their values."""
    keys = flatten(dataclasses.asdict(config))
    return {key: value for key, value in keys if not key.startswith(NOT_FINGERPRINTED)}


DEFAULTS = dict(flatten(dataclasses.asdict(Config())))
KEYS = tuple(DEFAULTS)


def _types(section: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, hint in typing.get_type_hints(section, include_extras=True).items():
        if dataclasses.is_dataclass(hint):
            yield from _types(typing.cast(type, hint), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", hint


TYPES = dict(_types(Config))  # Annotated with the constraints and the documentation.
DESCRIPTIONS = {
    key: next(str(info.description) for info in typing.get_args(hint) if getattr(info, "description", None))
    for key, hint in TYPES.items()
}
