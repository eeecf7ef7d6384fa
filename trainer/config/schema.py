"""What a configuration holds: frozen dataclasses with types, defaults and documentation for each key."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

CONFIG_FILE = "config.yaml"  # in a model_dir

_STRICT = pydantic.ConfigDict(extra="forbid")


def _no_boolean(wanted: str) -> pydantic.BeforeValidator:
    """YAML reads `on` as true, and pydantic true as 1."""

    def check(value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError(wanted)
        return value

    return pydantic.BeforeValidator(check)


def _integral(value: Any) -> Any:
    """The discrete values of a tuning job are floats: it may write a whole one as 16.0, or as 1e+06."""
    try:
        written = isinstance(value, str) and not value.strip().lstrip("+-").isdecimal()
        return int(float(value)) if written and float(value).is_integer() else value
    except ValueError:
        return value


Integer = Annotated[int, _no_boolean("a valid integer"), pydantic.BeforeValidator(_integral)]

Number = Annotated[float, _no_boolean("a valid number"), Field(allow_inf_nan=False)]

Positive = Annotated[Integer, Field(gt=0)]

Fraction = Annotated[Number, Field(ge=0, lt=1)]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    __pydantic_config__ = _STRICT
    seq_length: Annotated[Integer, Field(ge=3)] = (
        128  # tokens of an example, special ones included; longer texts are cut
    )
    truncation: Literal["head", "tail", "head_tail"] = "head"  # which end of a longer text is kept
    batch_size: Positive = 32  # global: over all replicas
    group_by_length: bool = True  # batches of texts of similar length: less padding
    pad_multiple: Positive = 16  # a batch is padded to its longest text, rounded up to a multiple of this
    shuffle_examples: Positive = 1 << 18  # shuffled together, and held in memory


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    __pydantic_config__ = _STRICT
    epochs: Annotated[Number, Field(gt=0)] | None = None  # 3 if steps is not set either
    steps: Positive | None = None
    accumulation_steps: Positive = 1  # parts that a replica computes its share of a batch in: less memory, same result
    log_every: Positive = 20
    save_every: Positive = 500
    eval_every: Positive | None = None  # steps; once an epoch if not set
    keep_checkpoints: Annotated[Integer, Field(ge=3)] = 3
    background_saves: bool | None = None  # write checkpoints beside the training; not set: on a GPU or a TPU


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    __pydantic_config__ = _STRICT
    learning_rate: Annotated[Number, Field(gt=0)] = 1e-4  # where the decay begins; warm-up rises to meet it
    warmup_fraction: Fraction = 0.1  # of the steps
    weight_decay: Annotated[Number, Field(ge=0)] = 0.01
    clip_norm: Annotated[Number, Field(gt=0)] = 1.0  # of all gradients together


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    __pydantic_config__ = _STRICT
    dropout: Fraction | None = None  # one rate for head and encoder; not set: the encoder's own, 0.1 in the head


@dataclasses.dataclass(frozen=True)
class LoggingConfig:
    __pydantic_config__ = _STRICT
    tensorboard: bool = True
    progress: bool = True  # a progress bar on standard error


@dataclasses.dataclass(frozen=True)
class Config:
    __pydantic_config__ = _STRICT
    task: str | None = None  # refused if the data set's is another
    encoder: str = "minilm"
    preprocess: str = ""  # the encoder's preprocessor, where none goes with it
    seed: Annotated[Integer, Field(ge=0, lt=1 << 31)] = 0
    precision: Literal["float32", "bfloat16", "auto"] = (
        "float32"  # of the training steps; evaluation and export are float32
    )
    data_dir: str = ""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    logging: LoggingConfig = dataclasses.field(default_factory=LoggingConfig)


# What may differ between a run and its resumption: paths and logging. The encoder and the data are
# compared by their content.
NOT_FINGERPRINTED = ("data_dir", "encoder", "preprocess", "logging.")

DEFAULT_EPOCHS = 3.0


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """{"data": {"seq_length": 128}} -> ("data.seq_length", 128)."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


DEFAULTS = dict(flatten(dataclasses.asdict(Config())))

KEYS = tuple(DEFAULTS)
