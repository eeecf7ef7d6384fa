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
        _doc("Tokens of a sequence, special tokens included. data.truncation says what is kept of longer texts."),
    ] = 128
    truncation: Annotated[
        Literal["head", "tail", "head_tail", "windows"],
        _doc("What is kept of a longer text: its start, its end, half of each, or several windows of data.seq_length."),
    ] = "head"
    window_stride: Annotated[
        PositiveInteger | None,
        _doc("Tokens from the start of a window to that of the next. If unset: three quarters of its content."),
    ] = None
    max_windows: Annotated[
        PositiveInteger, _doc("Windows of a text at most. The middle of a text that needs more is dropped.")
    ] = 4
    batch_size: Annotated[PositiveInteger, _doc("Examples of a step, over all replicas.")] = 32
    group_by_length: Annotated[bool, _doc("Makes batches of texts of similar length, which need less padding.")] = True
    pad_multiple: Annotated[
        PositiveInteger, _doc("A batch is padded to its longest text, rounded up to a multiple of this many tokens.")
    ] = 16
    shuffle_examples: Annotated[
        PositiveInteger, _doc("Examples that are shuffled together. They are held in memory.")
    ] = 1 << 18
    positive_class: Annotated[
        str,
        _doc("The class that precision, recall, F1 and average precision are of. Of two classes: train's rarer one."),
    ] = ""


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    __pydantic_config__ = _STRICT
    epochs: Annotated[
        PositiveNumber | None, _doc(f"Passes over the training split. {DEFAULT_EPOCHS:g} if training.steps is unset.")
    ] = None
    steps: Annotated[PositiveInteger | None, _doc("Steps of the optimizer, in the place of training.epochs.")] = None
    class_weights: Annotated[
        ClassWeights,
        _doc(
            "The weight of each class's examples in the loss: balanced (all weigh the same), or weights by label "
            "such as {spam: 10}, 1 for those left out."
        ),
    ] = None
    loss: Annotated[
        Literal["cross_entropy", "focal"], _doc("The loss of classes: focal gives easy examples less weight.")
    ] = "cross_entropy"
    focal_gamma: Annotated[
        Number, Field(ge=0, le=10), _doc("For the focal loss: a larger number gives easy examples less weight.")
    ] = 2.0
    label_smoothing: Annotated[
        Fraction, _doc("The share of a label that the loss divides among all classes, in training alone.")
    ] = 0.0
    accumulation_steps: Annotated[
        PositiveInteger,
        _doc("Micro-batches that a replica computes its share of a batch in. More take less memory, same result."),
    ] = 1
    log_every: Annotated[PositiveInteger, _doc("Steps between two train lines of metrics.jsonl.")] = 20
    save_every: Annotated[PositiveInteger, _doc("Steps between two checkpoints.")] = 500
    eval_every: Annotated[
        PositiveInteger | None, _doc("Steps between two evaluations on validation. An epoch if unset.")
    ] = None
    best_metric: Annotated[
        Metric | None,
        _doc(
            "The validation metric that selects the best step. If unset: accuracy for classes, pearson for numbers, "
            "micro_f1 for several labels a text."
        ),
    ] = None
    patience: Annotated[
        PositiveInteger | None,
        _doc("Training stops after this many evaluations in a row without a better one. If unset: it does not."),
    ] = None
    calibrate: Annotated[
        bool,
        _doc(
            "Exports probabilities that a temperature, fitted on validation, has calibrated. The labels stay the same."
        ),
    ] = False
    threshold_metric: Annotated[
        Literal["f1", "macro_f1", "accuracy", "balanced_accuracy"] | None,
        _doc(
            "The metric on validation that the threshold is chosen for: the probability above which a text is of the "
            "positive class. If unset: the threshold is 0.5, and F1 chooses those of several labels a text."
        ),
    ] = None
    keep_checkpoints: Annotated[Integer, Field(ge=3), _doc("How many of the newest checkpoints are kept.")] = 3
    background_saves: Annotated[
        bool | None, _doc("Writes checkpoints while training continues. If unset: on a GPU or a TPU only.")
    ] = None


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    __pydantic_config__ = _STRICT
    name: Annotated[
        Literal["adamw", "lamb"],
        _doc("The optimizer. lamb scales each variable's step to the variable's norm, for batches of thousands."),
    ] = "adamw"
    learning_rate: Annotated[
        PositiveNumber, _doc("The learning rate that the linear decay starts from, after a linear warm-up from 0.")
    ] = 1e-4
    warmup_fraction: Annotated[Fraction, _doc("The share of the steps in which the learning rate rises from 0.")] = 0.1
    weight_decay: Annotated[Number, Field(ge=0), _doc("The weight decay. Biases and layer norms have none.")] = 0.01
    clip_norm: Annotated[
        PositiveNumber, _doc("The largest norm of all gradients together. Larger ones are scaled.")
    ] = 1.0
    layer_decay: Annotated[
        Number,
        Field(gt=0, le=1),
        _doc("A layer's learning rate is that of the layer above it times this. The head has optimizer.learning_rate."),
    ] = 1.0
    ema: Annotated[
        Fraction,
        _doc(
            "The decay of an exponential moving average of the weights, such as 0.999, which is evaluated and exported "
            "in the place of the last weights. 0: none."
        ),
    ] = 0.0


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    __pydantic_config__ = _STRICT
    dropout: Annotated[
        Fraction | None,
        _doc("One dropout rate for head and encoder. If unset: the encoder's own, and 0.1 in the head."),
    ] = None
    max_positions: Annotated[
        PositiveInteger | None,
        _doc("Positions of the encoder: more than its own are made by repeating its table. If unset: its own."),
    ] = None
    freeze: Annotated[
        Freeze,
        _doc(
            "What keeps its values: none, embeddings, layers:N (the embeddings and the first N layers), or encoder "
            "(all but the head)."
        ),
    ] = "none"
    pooling: Annotated[
        Literal["pooled", "first", "mean"],
        _doc(
            "What of a text the head sees: the first token's output through the encoder's pooler, the first token's "
            "output, or the mean of all tokens' outputs."
        ),
    ] = "pooled"
    window_pooling: Annotated[
        Literal["mean", "max"], _doc("How a text's logits are made of those of its windows (data.truncation=windows).")
    ] = "mean"
    recompute: Annotated[
        bool,
        _doc(
            "Computes the activations of each encoder layer again in the backward pass instead of keeping them: less "
            "memory, slower steps, the same gradients."
        ),
    ] = False
    fused: Annotated[
        Literal["auto", "off", "on"],
        BeforeValidator(lambda value: {False: "off", True: "on"}.get(value, value)),  # As YAML reads `off` and `on`.
        _doc(
            "Whether encoder layers and AdamW are computed by few large operations, with the same results but for "
            "rounding: auto does on a CPU. Each width of a batch is compiled once. Exports have plain layers."
        ),
    ] = "off"
    compile: Annotated[
        Literal["auto", "off", "xla"],
        BeforeValidator(lambda value: "off" if value is False else value),  # As YAML reads `off`.
        _doc(
            "Whether XLA compiles training and evaluation: auto does on a GPU. Batches have four widths at most then, "
            "each of which is compiled once. A TPU compiles in any case."
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
    tensorboard: Annotated[bool, _doc("Writes TensorBoard's events.")] = True
    progress: Annotated[bool, _doc("Shows a progress bar on standard error.")] = True
    mlflow: Annotated[
        SinkTarget,
        _doc("Logs to MLflow as well: a tracking URI, or on for MLflow's own setting. Needs hubtune[mlflow]."),
    ] = ""
    wandb: Annotated[
        SinkTarget,
        _doc("Logs to Weights & Biases as well: a project, or on for the project hubtune. Needs hubtune[wandb]."),
    ] = ""
    report: Annotated[bool, _doc("Writes report.html and model_card.md at the end of a run.")] = True
    peak_flops: Annotated[
        PositiveNumber | None,
        _doc("FLOPs a second of a device, which mfu is a share of. If unset: those of a known GPU."),
    ] = None


@dataclasses.dataclass(frozen=True)
class Config:
    __pydantic_config__ = _STRICT
    task: Annotated[str | None, _doc("The data set's name. Another than the data set's own is refused.")] = None
    encoder: Annotated[str, _doc("The encoder: a name, a Hub or Kaggle handle, or a folder.")] = "minilm"
    preprocess: Annotated[
        str, _doc("The encoder's preprocessor, a handle or a folder, if the encoder does not come with one.")
    ] = ""
    seed: Annotated[
        Integer, Field(ge=0, lt=1 << 31), _doc("Decides the order of batches, dropout and the head's first weights.")
    ] = 0
    precision: Annotated[
        Literal["float32", "bfloat16", "auto"],
        _doc("The type that training steps compute in: auto is bfloat16 where the hardware computes in it."),
    ] = "float32"
    eval_precision: Annotated[
        Literal["float32", "bfloat16", "auto"],
        _doc(
            "The type that evaluation, test and the export compute in: auto is bfloat16 if training steps compute in "
            "it and the hardware does."
        ),
    ] = "float32"
    data_dir: Annotated[str, _doc("The folder of a prepared data set.")] = ""
    init_from: Annotated[
        str,
        _doc("The run that a new run goes on from with its weights: its model_dir, its best/ or its export."),
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
# What may be given with a run whose configuration is its own: where its files are by now, and what is shown.
REPLACEABLE_KEYS = ("task", "logging.progress", *(key for key in PATH_KEYS if key != "init_from"))

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


def _descriptions(section: type, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, hint in typing.get_type_hints(section, include_extras=True).items():
        if dataclasses.is_dataclass(hint):
            yield from _descriptions(typing.cast(type, hint), f"{prefix}{name}.")
        else:
            infos = [extra for extra in typing.get_args(hint) if isinstance(extra, FieldInfo) and extra.description]
            yield f"{prefix}{name}", str(infos[-1].description)


DESCRIPTIONS = dict(_descriptions(Config))
