"""MLflow and Weights & Biases, each opened as a SinkRun. Another service is another entry of SERVICES.

Neither is installed by default: hubtune[mlflow] and hubtune[wandb] have them.
"""

import dataclasses
import importlib.util
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from trainer.config.sink_targets import ON
from trainer.errors import Problem
from trainer.storage import fs

EXPERIMENT = "hubtune"  # MLflow's experiment, and the project of Weights & Biases unless another is named.
# MLflow's own limit of a request: https://mlflow.org/docs/latest/api_reference/rest-api.html#log-batch
MLFLOW_MAX_PARAMS, MLFLOW_MAX_PARAM_CHARACTERS = 100, 6000


@dataclasses.dataclass(frozen=True)
class SinkRun:
    """A run of a service, opened."""

    log: Callable[[int, Mapping[str, float]], None]  # The metrics of a step, as {"train/loss": 0.5}.
    # result.json's values of a run that is finished. {}: it was stopped, and will go on.
    finish: Callable[[Mapping[str, Any]], None]


@dataclasses.dataclass(frozen=True)
class SinkRequest:
    """What a run is opened with."""

    target: str  # The setting: where it is logged, or ON.
    run_id: str  # Of new_id.
    resumes: bool  # Whether a run of this id was opened before.
    name: str
    model_dir: str
    config: Mapping[str, Any]  # By key.


@dataclasses.dataclass(frozen=True)
class Service:
    name: str  # For people.
    package: str  # What it is imported as. The extra of pyproject.toml has the setting's name.
    new_id: Callable[[SinkRequest], str]
    open: Callable[[SinkRequest], SinkRun]


def _mlflow_client(target: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=None if target == ON else target)


def _create_mlflow_run(request: SinkRequest) -> str:
    client = _mlflow_client(request.target)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT)
    return str(client.create_run(experiment_id, run_name=request.name).info.run_id)


def _open_mlflow(request: SinkRequest) -> SinkRun:
    from mlflow.entities import Metric, Param

    client, run_id = _mlflow_client(request.target), request.run_id
    if request.resumes:
        client.update_run(run_id, status="RUNNING")
    else:
        params = [Param(key, str(value)[:MLFLOW_MAX_PARAM_CHARACTERS]) for key, value in request.config.items()]
        for start in range(0, len(params), MLFLOW_MAX_PARAMS):
            client.log_batch(run_id, params=params[start : start + MLFLOW_MAX_PARAMS])

    def log(step: int, metrics: Mapping[str, float]) -> None:
        now_ms = int(time.time() * 1000)
        client.log_batch(run_id, metrics=[Metric(name, value, now_ms, step) for name, value in metrics.items()])

    def finish(result: Mapping[str, Any]) -> None:
        if result:
            client.log_dict(run_id, dict(result), "result.json")
        client.set_terminated(run_id, "FINISHED" if result else "KILLED")

    return SinkRun(log, finish)


def _open_wandb(request: SinkRequest) -> SinkRun:
    import wandb

    run = wandb.init(
        project=EXPERIMENT if request.target == ON else request.target,
        id=request.run_id,
        resume="allow",
        name=request.name,
        dir=fs.local_scratch(request.model_dir),
        config=dict(request.config),
        # The run's own output stays as it is, and neither its code nor its repository is sent.
        settings=wandb.Settings(silent=True, console="off", save_code=False, disable_git=True),
    )

    def log(step: int, metrics: Mapping[str, float]) -> None:
        run.log(dict(metrics), step=step)

    def finish(result: Mapping[str, Any]) -> None:
        if result:
            run.summary["result"] = dict(result)
        run.finish(exit_code=0 if result else 1)

    return SinkRun(log, finish)


SERVICES = {
    "mlflow": Service("MLflow", "mlflow", _create_mlflow_run, _open_mlflow),
    "wandb": Service("Weights & Biases", "wandb", lambda request: uuid.uuid4().hex[:12], _open_wandb),
}


def find_missing_packages(targets: Mapping[str, str]) -> list[Problem]:
    """A problem for each service that has a target and is not installed. `targets` is by key of SERVICES."""
    return [
        Problem(
            f"logging.{key}",
            f"be left out, or come with the package of {SERVICES[key].name}",
            f"{target}, in an environment without {SERVICES[key].package}",
            f"Run: pip install 'hubtune[{key}]', or in a checkout pip install --editable '.[{key}]'.",
        )
        for key, target in targets.items()
        if target and importlib.util.find_spec(SERVICES[key].package) is None
    ]
