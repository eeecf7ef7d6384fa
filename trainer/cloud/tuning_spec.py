"""A tuning job: many trials of one CustomJob, each with other values of some keys of the configuration.

A YAML file such as configs/tune_imdb.yaml describes the study. `build_tuning_job` makes a HyperparameterTuningJob of
it, in the JSON mapping of its proto. The service's rules:
https://cloud.google.com/vertex-ai/docs/reference/rest/v1/StudySpec
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from trainer.cloud import job_spec
from trainer.cloud.job_request import JobRequest
from trainer.config import loading, schema, yaml_file
from trainer.config.value_types import Integer, Number, PositiveInteger
from trainer.data import tasks
from trainer.errors import Problem, UsageError, advise_nearest
from trainer.runtime import trial

_STRICT = pydantic.ConfigDict(extra="forbid")

SCALES = {"linear": "UNIT_LINEAR_SCALE", "log": "UNIT_LOG_SCALE", "reverse_log": "UNIT_REVERSE_LOG_SCALE"}
ALGORITHMS = {"bayesian": "ALGORITHM_UNSPECIFIED", "grid": "GRID_SEARCH", "random": "RANDOM_SEARCH"}
MEASUREMENTS = {"best": "BEST_MEASUREMENT", "last": "LAST_MEASUREMENT"}
MAX_DISCRETE_VALUES = 1000
MIN_DISCRETE_DISTANCE = 1e-10

Scale = Literal["linear", "log", "reverse_log"]


@dataclasses.dataclass(frozen=True)
class DoubleRange:
    __pydantic_config__ = _STRICT
    type: Literal["double"]
    min: Number
    max: Number
    scale: Scale = "linear"


@dataclasses.dataclass(frozen=True)
class IntegerRange:
    __pydantic_config__ = _STRICT
    type: Literal["integer"]
    min: Integer
    max: Integer
    scale: Scale = "linear"


@dataclasses.dataclass(frozen=True)
class Discrete:
    __pydantic_config__ = _STRICT
    type: Literal["discrete"]
    values: Annotated[tuple[Number, ...], Field(min_length=1, max_length=MAX_DISCRETE_VALUES)]
    scale: Scale = "linear"


@dataclasses.dataclass(frozen=True)
class Categorical:
    __pydantic_config__ = _STRICT
    type: Literal["categorical"]
    values: Annotated[tuple[str, ...], Field(min_length=1)]


Parameter = DoubleRange | IntegerRange | Discrete | Categorical


@dataclasses.dataclass(frozen=True)
class Study:
    __pydantic_config__ = _STRICT
    # What the trainer reports: validation/METRIC of training.best_metric, by default of accuracy or pearson.
    metric: str
    max_trials: PositiveInteger
    # By key of the configuration.
    parameters: Annotated[dict[str, Annotated[Parameter, Field(discriminator="type")]], Field(min_length=1)]
    goal: Literal["maximize", "minimize"] = "maximize"
    parallel_trials: PositiveInteger = 1
    max_failed_trials: Annotated[Integer, Field(ge=0)] = 0  # So many end the job. With 0 the service decides.
    algorithm: Literal["bayesian", "grid", "random"] = "bayesian"
    # Both give the same result: the trainer reports the best value so far.
    measurement: Literal["best", "last"] = "best"


_ADAPTER = pydantic.TypeAdapter(Study)


def read_study(path: str) -> Study:
    """The study in a YAML file. Raises UsageError with every value in it that is wrong."""
    try:
        return _ADAPTER.validate_python(yaml_file.read_yaml(path, "--tune"))
    except pydantic.ValidationError as invalid:
        problems = []
        for error in invalid.errors():
            # The location of a parameter's key is parameters, its name, its type, the key.
            keys = [
                str(part) for place, part in enumerate(error["loc"]) if place != 2 or error["loc"][0] != "parameters"
            ]
            unknown = error["type"] in loading.UNKNOWN_KEY_ERRORS
            required = "be left out: it is not a key of a study" if unknown else loading.describe_requirement(error)
            problems.append(Problem(f"{'.'.join(keys)} in --tune={path}", required, repr(error["input"])))
        raise UsageError(*problems) from None


def check_metric(study: Study, kind: str, best_metric: str | None = None) -> None:
    """Raises UsageError if a trial on data of this kind would report another metric than the study's.

    `best_metric` is the configuration's training.best_metric, which suits them.
    """
    reported = trial.metric_tag(best_metric or tasks.MAIN_METRIC[kind])
    if study.metric != reported:
        raise UsageError(Problem("metric in --tune", f"be {reported} for {tasks.KIND_NAMES[kind]}", study.metric))


def build_tuning_job(study: Study, request: JobRequest) -> dict[str, Any]:
    """A HyperparameterTuningJob whose trials run the job, in the JSON mapping of its proto.

    Raises UsageError with every value of a parameter that the trainer would refuse, and everything else that the
    service would.
    """
    problems = list(_find_study_problems(study, request.config.training.best_metric))
    for key, parameter in study.parameters.items():
        problems += _find_parameter_problems(f"parameters.{key} in --tune", parameter)
        problems += _find_value_problems(key, parameter, request)
    if problems:
        raise UsageError(*problems)
    custom_job = job_spec.build_custom_job(request)
    spec = {
        "metrics": [{"metricId": study.metric, "goal": study.goal.upper()}],
        "parameters": [_build_parameter_spec(key, parameter) for key, parameter in study.parameters.items()],
        "algorithm": ALGORITHMS[study.algorithm],
        "measurementSelectionType": MEASUREMENTS[study.measurement],
    }
    job = {
        "displayName": request.name,
        "studySpec": spec,
        "maxTrialCount": study.max_trials,
        "parallelTrialCount": study.parallel_trials,
        "maxFailedTrialCount": study.max_failed_trials,
        "trialJobSpec": custom_job["jobSpec"],
    }
    return {**job, "labels": custom_job["labels"]} if "labels" in custom_job else job


def _build_parameter_spec(key: str, parameter: Parameter) -> dict[str, Any]:
    if isinstance(parameter, Discrete | Categorical):
        values: dict[str, Any] = {"values": list(parameter.values)}
    else:
        values = {"minValue": parameter.min, "maxValue": parameter.max}
    scale = {} if isinstance(parameter, Categorical) else {"scaleType": SCALES[parameter.scale]}
    return {"parameterId": key, f"{parameter.type}ValueSpec": values, **scale}


def _find_study_problems(study: Study, best_metric: str | None) -> Iterator[Problem]:
    """What no trial would report, and what the service would refuse. `best_metric` is the configuration's."""
    if best_metric:
        reported, reason = [trial.metric_tag(best_metric)], "training.best_metric"
    else:
        reported, reason = [trial.metric_tag(metric) for metric in tasks.MAIN_METRIC.values()], "the labels are"
    if study.metric not in reported:
        yield Problem("metric in --tune", f"be {' or '.join(reported)}, as {reason}", study.metric)
    goal = "minimize" if best_metric in tasks.LOWER_IS_BETTER else "maximize"
    if study.goal != goal:
        yield Problem("goal in --tune", f"be {goal} for {' and '.join(reported)}", study.goal)
    if "training.best_metric" in study.parameters:
        required = "be no parameter: trials are compared by it"
        yield Problem("training.best_metric in --tune", required, "a parameter", "Set it in the configuration.")
    if study.parallel_trials > study.max_trials:
        required = f"be at most max_trials, {study.max_trials}"
        yield Problem("parallel_trials in --tune", required, str(study.parallel_trials))
    if study.algorithm == "grid" and any(isinstance(parameter, DoubleRange) for parameter in study.parameters.values()):
        yield Problem("algorithm in --tune", "be bayesian or random with a parameter of type double", "grid")


def _find_parameter_problems(setting: str, parameter: Parameter) -> Iterator[Problem]:
    """What the service would refuse."""
    if isinstance(parameter, Categorical):
        if len(set(parameter.values)) < len(parameter.values):
            yield Problem(setting, "have values that differ", ", ".join(parameter.values))
        return
    limits = parameter.values if isinstance(parameter, Discrete) else (parameter.min, parameter.max)
    if isinstance(parameter, Discrete):
        if any(after - before < MIN_DISCRETE_DISTANCE for before, after in itertools.pairwise(limits)):
            yield Problem(setting, "have values in increasing order", ", ".join(map(str, limits)))
    elif parameter.min >= parameter.max:
        yield Problem(setting, "have a max above min", f"min {parameter.min}, max {parameter.max}")
    if parameter.scale != "linear" and min(limits) <= 0:
        yield Problem(setting, f"have values above 0 for the scale {parameter.scale}", str(min(limits)))


def _find_value_problems(key: str, parameter: Parameter, request: JobRequest) -> Iterator[Problem]:
    """What the trainer would refuse: it is given the parameter as a flag, --section.key=value."""
    setting = f"parameters.{key} in --tune"
    if key not in schema.KEYS:
        yield Problem(setting, "be a key of the configuration", key, advise_nearest(key, schema.KEYS))
        return
    values: tuple[Any, ...]
    values = parameter.values if isinstance(parameter, Discrete | Categorical) else (parameter.min, parameter.max)
    if isinstance(parameter, DoubleRange):  # One value inside the range, that is not an integer.
        values += (parameter.min + (parameter.max - parameter.min) / math.pi,)
    problems: list[Problem] = []
    for value in values:
        try:
            config = loading.load_config(None, [*job_spec.changed_keys(request.config), f"{key}={value}"])
            loading.check_replicas(config, request.devices)
        except UsageError as error:
            problems += error.problems
    yield from (Problem(setting, problem.required, problem.received) for problem in problems)
