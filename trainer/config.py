"""What a run is: frozen dataclasses; defaults < YAML preset < flags; every error at once.

`load` is the way in, `dump` the way out: a run writes its resolved configuration beside its results.
"""

import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import pydantic
import yaml
from pydantic import Field

from trainer import strict_yaml
from trainer.environment import UsageError

NAME = "config.yaml"  # in a model_dir

_STRICT = pydantic.ConfigDict(extra="forbid")


def _no_boolean(wanted: str) -> pydantic.BeforeValidator:
    """YAML reads `on` as true, and pydantic true as 1."""

    def check(value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError(wanted)
        return value

    return pydantic.BeforeValidator(check)


def _whole(value: Any) -> Any:
    """The discrete values of a tuning job are floats: it may write a whole one as 16.0, or as 1e+06."""
    try:
        written = isinstance(value, str) and not value.strip().lstrip("+-").isdecimal()
        return int(float(value)) if written and float(value).is_integer() else value
    except ValueError:
        return value


Integer = Annotated[int, _no_boolean("a valid integer"), pydantic.BeforeValidator(_whole)]
Number = Annotated[float, _no_boolean("a valid number"), Field(allow_inf_nan=False)]
Positive = Annotated[Integer, Field(gt=0)]
Fraction = Annotated[Number, Field(ge=0, lt=1)]


@dataclasses.dataclass(frozen=True)
class Data:
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
class Training:
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
class Optimizer:
    __pydantic_config__ = _STRICT
    learning_rate: Annotated[Number, Field(gt=0)] = 1e-4  # where the decay begins; warm-up rises to meet it
    warmup_fraction: Fraction = 0.1  # of the steps
    weight_decay: Annotated[Number, Field(ge=0)] = 0.01
    clip_norm: Annotated[Number, Field(gt=0)] = 1.0  # of all gradients together


@dataclasses.dataclass(frozen=True)
class Model:
    __pydantic_config__ = _STRICT
    dropout: Fraction | None = None  # one rate for head and encoder; not set: the encoder's own, 0.1 in the head


@dataclasses.dataclass(frozen=True)
class Logging:
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
    data: Data = dataclasses.field(default_factory=Data)
    training: Training = dataclasses.field(default_factory=Training)
    optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
    model: Model = dataclasses.field(default_factory=Model)
    logging: Logging = dataclasses.field(default_factory=Logging)


# What may differ between a run and its resumption: paths and logging. The encoder and the data are
# compared by their content.
NOT_FINGERPRINTED = ("data_dir", "encoder", "preprocess", "logging.")

DEFAULT_EPOCHS = 3.0

_ADAPTER = pydantic.TypeAdapter(Config)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """{"data": {"seq_length": 128}} -> ("data.seq_length", 128)."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


DEFAULTS = dict(flatten(dataclasses.asdict(Config())))
KEYS = tuple(DEFAULTS)


def _nearest(key: str) -> str:
    # A right name in the wrong section is the likelier slip than a wrong name in the right one.
    near = [k for k in KEYS if k.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]]
    near = near or difflib.get_close_matches(key, KEYS, n=1, cutoff=0.5)
    return f"; the nearest is {near[0]}" if near else f"; there are {', '.join(KEYS)}"


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    for section in sections:
        child = tree.setdefault(section, {})
        if not isinstance(child, dict):
            child = tree[section] = {}
        tree = child
    tree[name] = value


def validate(tree: Mapping[str, Any]) -> Config:
    """The Config that a tree of plain values stands for. Raises UsageError with every error in it."""
    errors = []
    tree = {key: value for key, value in tree.items() if value is not None}  # an empty section sets nothing
    try:
        config = _ADAPTER.validate_python(tree)
    except pydantic.ValidationError as invalid:
        for error in invalid.errors():
            key = ".".join(
                str(part) for part in error["loc"] if not str(part).startswith(("function-", "float", "int"))
            )
            if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
                section = error["input"] if isinstance(error["input"], Mapping) else None
                unknown = [f"{key}.{name}" for name, _ in flatten(section)] if section else [key]
                errors += [f"{k}: a known key was required{_nearest(k)}. Received: {k}." for k in unknown]
            else:
                wanted = (
                    error["msg"].removeprefix("Input should be ").removeprefix("Value error, ").split(", unable")[0]
                )
                errors.append(
                    f"{key}: {wanted} was required. Received: {error['input']!r}. Change it with --set {key}=..."
                )
    training = tree.get("training")
    if isinstance(training, dict) and training.get("epochs") and training.get("steps"):
        both = f"{training['epochs']} and {training['steps']}"
        errors.append(f"training.epochs or training.steps was required, not both. Received: {both}.")
    if not errors:
        return config
    raise UsageError("\n".join(["the configuration has errors:", *dict.fromkeys(errors)]))


def load(path: str | None, overrides: Sequence[str] = (), flags: Mapping[str, Any] | None = None) -> Config:
    """Defaults < the YAML file at `path` < `overrides` ("section.key=value") < `flags` that are not None.

    Values are coerced by their field's type (so that YAML's string `2e-5` is a number, and `off` is
    no boolean where a word is wanted). Raises UsageError with every error, and the nearest valid
    key for an unknown one.
    """
    tree = strict_yaml.read(path) if path else {}
    keys = {override.partition("=")[0].strip() for override in overrides}
    for key, rival in (("training.steps", "training.epochs"), ("training.epochs", "training.steps")):
        if key in keys and rival not in keys and isinstance(tree.get("training"), dict):
            _set(tree, rival, None)  # the one that was asked for replaces the preset's other
    malformed = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            malformed.append(f"--set takes section.key=value. Received: {override!r}.")
        else:
            unset = value.strip() in ("null", "none", "") and not isinstance(DEFAULTS.get(key.strip()), str)
            _set(tree, key.strip(), None if unset else value.strip())
    for key, value in (flags or {}).items():
        if value is not None:
            _set(tree, key, value)
    try:
        config = validate(tree)
    except UsageError as error:
        raise UsageError("\n".join([str(error), *malformed])) from None
    if malformed:
        raise UsageError("\n".join(malformed))
    return config


def dump(config: Config) -> str:
    """The configuration as YAML; `load` gives it back."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True)


def differences(old: Config, new: Config) -> list[str]:
    """Keys that may not differ between a run and its resumption, but do: "key: old there, new here"."""
    before, after = dict(flatten(dataclasses.asdict(old))), dict(flatten(dataclasses.asdict(new)))
    return [
        f"{key}: {before[key]} there, {after[key]} here"
        for key in KEYS
        if before[key] != after[key] and not key.startswith(NOT_FINGERPRINTED)
    ]


def check_replicas(config: Config, replicas: int, examples: int | None = None) -> None:
    """Raises UsageError if some replica would never have an example; `examples` is the size of train, where known."""
    for what, count in (("data.batch_size", config.data.batch_size), ("the training examples", examples)):
        if count is not None and count < replicas:
            raise UsageError(
                f"{what} must be at least as many as the replicas, {replicas}. Received: {count}. "
                "Raise data.batch_size with --set, or use fewer devices."
            )
