"""The types of a configuration's values: what is accepted for each, and what it becomes."""

import re
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, PlainValidator
from pydantic_core import PydanticCustomError, PydanticKnownError

from trainer.config import sink_targets, yaml_file

# Of training.class_weights: beyond, float32 has no digits left for the other classes.
MIN_CLASS_WEIGHT, MAX_CLASS_WEIGHT = 1e-6, 1e6


def _refuse_boolean(error_type: Literal["int_type", "float_type"]) -> BeforeValidator:
    """YAML reads `on` as true, and pydantic reads true as 1."""

    def check(value: Any) -> Any:
        if isinstance(value, bool):
            raise PydanticKnownError(error_type)
        return value

    return BeforeValidator(check)


def _read_integral(value: Any) -> Any:
    """A tuning job's discrete values are floats: it may write an integer as 16.0, or as 1e+06."""
    try:
        is_float = isinstance(value, str) and not value.strip().lstrip("+-").isdecimal()
        return int(float(value)) if is_float and float(value).is_integer() else value
    except ValueError:
        return value


def _read_class_weights(value: Any) -> Any:
    """None, "balanced" or {label: weight}, also as text in YAML."""
    duplicates: list[str] = []
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value, duplicates = yaml_file.parse(value)
        except yaml.YAMLError:
            raise PydanticCustomError("class_weights", "") from None
    if isinstance(value, dict) and not duplicates:
        try:
            # Of a boolean, float would make 1 or 0.
            weights = {str(label): float(str(weight)) for label, weight in value.items()}
        except ValueError:
            weights = {}
        if weights and all(MIN_CLASS_WEIGHT <= weight <= MAX_CLASS_WEIGHT for weight in weights.values()):
            return weights
    elif value is None or value == "balanced":
        return value
    raise PydanticCustomError("class_weights", "")


def _read_sink(value: Any) -> str:
    target = sink_targets.read_target(value)
    if target is None:
        raise PydanticCustomError("sink_target", "")
    return target


def _read_freeze(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"none|embeddings|layers:\d{1,4}|encoder", value):
        return value
    raise PydanticCustomError("freeze", "")


Integer = Annotated[int, _refuse_boolean("int_type"), BeforeValidator(_read_integral)]
Number = Annotated[float, _refuse_boolean("float_type"), Field(allow_inf_nan=False)]
PositiveInteger = Annotated[Integer, Field(gt=0)]
PositiveNumber = Annotated[Number, Field(gt=0)]
Fraction = Annotated[Number, Field(ge=0, lt=1)]
SinkTarget = Annotated[str, BeforeValidator(_read_sink)]
ClassWeights = Annotated[str | dict[str, float] | None, PlainValidator(_read_class_weights)]
Freeze = Annotated[str, BeforeValidator(_read_freeze)]
# Those of tasks.METRICS, of all kinds of labels.
Metric = Literal[
    "accuracy",
    "precision",
    "recall",
    "f1",
    "macro_f1",
    "matthews",
    "roc_auc",
    "average_precision",
    "micro_f1",
    "micro_average_precision",
    "subset_accuracy",
    "pearson",
    "spearman",
    "quadratic_kappa",
    "mean_squared_error",
    "loss",
]
