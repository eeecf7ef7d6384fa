"""A tuning job: many trials of one CustomJob, each with other values of some keys of the configuration.

A YAML file such as configs/tune_imdb.yaml says which; `job` makes of it a HyperparameterTuningJob in the JSON mapping
of its proto. https://cloud.google.com/vertex-ai/docs/reference/rest/v1/StudySpec has the service's rules.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from trainer.config import loading, yaml_file
from trainer.config.schema import Integer, Number, PositiveInteger
from trainer.data import tasks
from trainer.errors import UsageError
from trainer.runtime import trial, vertex_env

_STRICT = pydantic.ConfigDict(extra="forbid")

SCALES = {"linear": "UNIT_LINEAR_SCALE", "log": "UNIT_LOG_SCALE", "reverse_log": "UNIT_REVERSE_LOG_SCALE"}
ALGORITHMS = {"bayesian": "ALGORITHM_UNSPECIFIED", "grid": "GRID_SEARCH", "random": "RANDOM_SEARCH"}
MEASUREMENTS = {"best": "BEST_MEASUREMENT", "last": "LAST_MEASUREMENT"}
# Values of a discrete parameter, and the least distance between two of them.
MOST, APART = 1000, 1e-10

Scale = Literal["linear", "log", "reverse_log"]


@dataclasses.dataclass(frozen=True)
class Double:
    __pydantic_config__ = _STRICT
    type: Literal["double"]
    min: Number
    max: Number
    scale: Scale = "linear"


@dataclasses.dataclass(frozen=True)
class Whole:
    __pydantic_config__ = _STRICT
    type: Literal["integer"]
    min: Integer
    max: Integer
    scale: Scale = "linear"


@dataclasses.dataclass(frozen=True)
class Discrete:
    __pydantic_config__ = _STRICT
    type: Literal["discrete"]
    values: Annotated[tuple[Number, ...], Field(min_length=1, max_length=MOST)]
    scale: Scale = "linear"


@dataclasses.dataclass(frozen=True)
class Categorical:
    __pydantic_config__ = _STRICT
    type: Literal["categorical"]
    values: Annotated[tuple[str, ...], Field(min_length=1)]


Parameter = Double | Whole | Discrete | Categorical


@dataclasses.dataclass(frozen=True)
class Study:
    __pydantic_config__ = _STRICT
    metric: str  # what the trainer reports: one of trial.TAGS
    max_trials: PositiveInteger
    parameters: Annotated[
        dict[str, Annotated[Parameter, Field(discriminator="type")]], Field(min_length=1)
    ]  # by key of the configuration
    goal: Literal["maximize"] = "maximize"  # higher is better of all that is reported
    parallel_trials: PositiveInteger = 1
    max_failed_trials: Annotated[Integer, Field(ge=0)] = 0  # that end the job; 0: the service decides
    algorithm: Literal["bayesian", "grid", "random"] = "bayesian"
    measurement: Literal["best", "last"] = "best"  # the same here: what is reported is the best so far


_ADAPTER = pydantic.TypeAdapter(Study)
_TYPES = ("double", "integer", "discrete", "categorical")


def read(path: str) -> Study:
    """The study in a YAML file. Raises UsageError with every value in it that is none."""
    try:
        return _ADAPTER.validate_python(yaml_file.read_yaml(path, "--tune"))
    except pydantic.ValidationError as invalid:
        found = []
        for error in invalid.errors():
            place = [str(part) for part in error["loc"]]
            key = ".".join(part for at, part in enumerate(place) if not (at == 2 and part in _TYPES))
            wanted = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ").split(", unable")[0]
            found.append(f"{key}: {wanted}. Received: {error['input']!r}.")
        raise UsageError("\n".join([f"--tune={path} has errors:", *found])) from None


def check_metric(study: Study, kind: str) -> None:
    """Raises UsageError if a trial on data of this kind would report another metric than the study awaits."""
    reported = trial.metric_tag(tasks.MAIN_METRIC[kind])
    if study.metric != reported:
        raise UsageError(
            f"metric: {reported} was required for a {kind}. Received: {study.metric}. Change it in --tune."
        )


def job(study: Study, custom_job: Mapping[str, Any], replicas: int = 1) -> dict[str, Any]:
    """A HyperparameterTuningJob whose trials run `custom_job`, both in the JSON mapping of their protos.

    `replicas`: the devices of a trial, none of which may be without an example. Raises UsageError with every value of a
    parameter that the trainer, started with that job's own flags, would refuse, and everything else that the service or
    the trial would.
    """
    found = [*_study_errors(study), *_job_errors(custom_job["jobSpec"])]
    for key, parameter in study.parameters.items():
        found += [f"parameters.{key}: {error}" for error in _parameter_errors(parameter)]
        found += _refused(key, parameter, _overrides(custom_job["jobSpec"]), replicas)
    if found:
        raise UsageError("\n".join(["the tuning job has errors:", *dict.fromkeys(found)]))
    spec = {
        "metrics": [{"metricId": study.metric, "goal": study.goal.upper()}],
        "parameters": [_spec(key, parameter) for key, parameter in study.parameters.items()],
        "algorithm": ALGORITHMS[study.algorithm],
        "measurementSelectionType": MEASUREMENTS[study.measurement],
    }
    return {
        "displayName": custom_job["displayName"],
        "studySpec": spec,
        "maxTrialCount": study.max_trials,
        "parallelTrialCount": study.parallel_trials,
        "maxFailedTrialCount": study.max_failed_trials,
        "trialJobSpec": custom_job["jobSpec"],
        **({"labels": custom_job["labels"]} if "labels" in custom_job else {}),
    }


def _spec(key: str, parameter: Parameter) -> dict[str, Any]:
    values = {k: v for k, v in dataclasses.asdict(parameter).items() if k in ("min", "max", "values")}
    named = {"min": "minValue", "max": "maxValue", "values": "values"}
    described = {named[k]: list(v) if k == "values" else v for k, v in values.items()}
    scale = {} if isinstance(parameter, Categorical) else {"scaleType": SCALES[parameter.scale]}
    return {"parameterId": key, f"{parameter.type}ValueSpec": described, **scale}


def _study_errors(study: Study) -> Iterator[str]:
    tags = [trial.metric_tag(metric) for metric in tasks.MAIN_METRIC.values()]
    if study.metric not in tags:
        yield f"metric: {' or '.join(tags)} was required, as the data set's labels are. Received: {study.metric}."
    if study.parallel_trials > study.max_trials:
        yield (
            f"parallel_trials: at most max_trials, {study.max_trials}, was required. Received: {study.parallel_trials}."
        )
    if study.algorithm == "grid" and any(isinstance(each, Double) for each in study.parameters.values()):
        yield "algorithm: another than grid was required, which takes no double. Received: grid."


def _job_errors(spec: Mapping[str, Any]) -> Iterator[str]:
    if not spec.get("baseOutputDirectory"):
        yield "A trial needs a folder of its own below the job's base output directory. Received: a job without one."
    shared = [flag for flag in _flags(spec) if flag.startswith(("--model_dir", "--job-dir"))]
    if shared:
        yield f"A trial's --model_dir must be its own: leave the flag out. Received: {', '.join(shared)}."


def _parameter_errors(parameter: Parameter) -> Iterator[str]:
    if isinstance(parameter, Categorical):
        if len(set(parameter.values)) < len(parameter.values):
            yield f"values that differ were required. Received: {', '.join(parameter.values)}."
        return
    ends = _ends(parameter)
    if isinstance(parameter, Discrete):
        if any(after - before < APART for before, after in itertools.pairwise(parameter.values)):
            yield f"values in increasing order were required. Received: {', '.join(map(str, parameter.values))}."
    elif parameter.min >= parameter.max:
        yield f"a max above min was required. Received: min {parameter.min}, max {parameter.max}."
    if parameter.scale != "linear" and min(ends) <= 0:
        yield f"values above 0 were required for the scale {parameter.scale}. Received: {min(ends)}."


def _ends(parameter: Double | Whole | Discrete) -> tuple[float, ...]:
    return parameter.values if isinstance(parameter, Discrete) else (parameter.min, parameter.max)


def _refused(key: str, parameter: Parameter, overrides: list[str], replicas: int) -> Iterator[str]:
    """What the trainer says of the parameter's values, of which a double has one between its ends, and not whole."""
    values: tuple[Any, ...] = parameter.values if isinstance(parameter, Categorical) else _ends(parameter)
    if isinstance(parameter, Double):
        values += (parameter.min + (parameter.max - parameter.min) / math.pi,)
    for value in values:
        try:
            loading.check_replicas(loading.load_config(None, [*overrides, f"{key}={value}"]), replicas)
        except UsageError as error:
            for line in str(error).removeprefix("the configuration has errors:\n").splitlines():
                yield f"parameters.{re.split(' Change it with| Raise data', line)[0]}"


def _flags(spec: Mapping[str, Any]) -> list[str]:
    return vertex_env.settings(spec["workerPoolSpecs"][0]["containerSpec"].get("args", []))


def _overrides(spec: Mapping[str, Any]) -> list[str]:
    return [flag.removeprefix("--set=") for flag in _flags(spec) if flag.startswith("--set=")]
