"""Prepare, train, evaluate and predict from Python: in a notebook, or in a program of your own.

```python
from trainer import api

data = api.prepare("reviews.csv", "data/reviews", encoder="minilm", text_column="review", label_column="stars")
result = api.train("data/reviews", "runs/first", settings={"training.epochs": 2, "optimizer.learning_rate": 3e-5})
result.test["accuracy"]
validation = api.evaluate("runs/first", split="validation", baseline=True)
validation.metrics["accuracy"], validation.baseline["accuracy"]
classifier = api.load("runs/first/export")
for prediction in classifier.predict(["a great film", "a dull one"]):
    print(prediction.label, prediction.scores)
```
`print(data)`, `print(result)` and `print(validation)` show what the commands print, which call the same functions. A
notebook needs a kernel of the environment that `make environment` makes; `examples/classify_text.ipynb` is one.

- **Settings** are those of [configuration.md](configuration.md), as values of Python. The other arguments are flags of
  the commands without their dashes. So messages name flags: `--model_dir` is the argument `model_dir`.
- **Errors** are UserError, a ValueError, with a Problem for each thing to change; UsageError is that of arguments and
  settings. All that is wrong with them is reported at once. [troubleshooting.md](troubleshooting.md) explains each
  message.
- **An interrupt** (the notebook's button, Ctrl-C) and SIGTERM end a training with a checkpoint, within seconds, and
  raise Stopped. A second one does what it does elsewhere in the program. **The same call resumes**, and a call for a
  run that is finished returns its result. In a thread other than the main one, Python handles no signals.
- **Progress** is shown on standard error as by the commands; `logging.progress` turns the bar off. The lines are those
  of the logger `trainer`: if the program has set Python's logging up, that decides.
- **Paths** (`AnyPath`) are strings or `pathlib.Path`s, local or `gs://`.

```python
try:
    api.train("data/reviews", "runs/second", settings={"training": {"epoch": 2}, "data.batch_size": "many"})
except api.UsageError as error:
    print([problem.setting for problem in error.problems])
```

## Twice in one process
A call leaves nothing behind that another one depends on: a run is bit for bit the one that `trainer.task` trains with
the same settings on the same devices, whatever was trained before in the process. Signal handlers, Python's logging and
matplotlib's backend are afterwards what they were. One call at a time: two threads that train would disturb each other.

TensorFlow starts its devices once in a process, so that some things are as the first call has left them:
- `virtual_devices` is the same in all calls that give it. Another number is refused.
- A GPU that `strategy="cpu"` hid in the first call is hidden from later ones. The line with the strategy says so.
- `tpu` is named in the first call, before TensorFlow is imported, and goes on being used.
- `strategy="multi_worker"` needs a process of its own for each run.

Import `trainer` before TensorFlow, or at least before its Keras is used: it asks for Keras 2.

What ends the process of a command for the safety of a run ends that of a program, too: the loss of a TPU's host, and of
the lease on a model_dir in a bucket or on a disk of several machines. The variables that services set, such as
`TF_CONFIG`, `TPU_NAME` and `AIP_MODEL_DIR`, mean what they mean for the command.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, get_args

from trainer.errors import Problem, UsageError, UserError
from trainer.export.text_classifier import Classifier, Prediction, load_classifier
from trainer.preparation import DataSet, PrepareOptions, prepare
from trainer.runtime import logs, versions, vertex_env
from trainer.runtime.signals import Stopped
from trainer.storage import fs, paths, preflight
from trainer.storage.paths import AnyPath
from trainer.storage.preflight import PathUse
from trainer.train import profiling, sessions
from trainer.train.sessions import Command, SessionRequest

if TYPE_CHECKING:
    from trainer.train.run_files import RunFiles

__all__ = [
    "Classifier",
    "Command",
    "DataSet",
    "DeviceOptions",
    "Evaluation",
    "Export",
    "Prediction",
    "PrepareOptions",
    "Problem",
    "Stopped",
    "TrainResult",
    "UsageError",
    "UserError",
    "evaluate",
    "export",
    "load",
    "predict",
    "prepare",
    "report",
    "train",
]

Split = Literal["train", "validation", "test"]


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """A finished run. The numbers are those of its `result.json`; `print` shows the summary of `trainer.task`."""

    model_dir: str  # The folder of the run.
    export: str  # The folder of the SavedModel, for `load`.
    report: str  # The path of report.html; empty if there is none.
    steps: int  # How many were trained.
    best_step: int  # The weights of this step were tested and exported.
    best_metric: str  # The metric of validation that chose it.
    seconds: float  # The time of all the run's calls.
    validation: dict[str, float]  # The metrics of the best step, by name.
    test: dict[str, float]  # The same on test.
    notes: list[str]  # Advice, for people.
    values: dict[str, Any] = dataclasses.field(repr=False)  # All of result.json.

    def __str__(self) -> str:
        from trainer.train import run_files, run_summary

        files = run_files.resolve_run_files(self.model_dir, vertex_env.service_folders(os.environ))
        return run_summary.format_summary(self.values, files.root, files.export, files.tensorboard, self.report)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The metrics of a run's best weights on a split. `print` shows them as a table, by class too."""

    split: str
    data_dir: str  # Whose split it is.
    encoder: str  # The name of the run's encoder.
    metrics: dict[str, float]  # By name, as in result.json.
    baseline: dict[str, float] | None  # Those of a bag of words, if they were asked for.
    classes: dict[str, Any]  # The positive class, scores by class, and the confusion. Empty for regression.

    def __str__(self) -> str:
        from trainer.evals.baseline import BASELINE_NAME
        from trainer.train import run_summary

        rows = [(self.encoder, self.metrics), *([(BASELINE_NAME, self.baseline)] if self.baseline else [])]
        return f"{self.split} of {self.data_dir}\n{run_summary.format_evaluation(rows, self.classes)}"


@dataclasses.dataclass(frozen=True)
class Export:
    """A SavedModel that a fresh process has compared with the run."""

    folder: str  # For `load`.
    difference: float  # The largest one between its scores and the run's.


class DeviceOptions(TypedDict, total=False):
    """The devices that a run computes on. These are flags of `trainer.task`, with the same defaults."""

    strategy: str  # auto, cpu, one_device, mirrored, multi_worker or tpu.
    virtual_devices: int | None  # Splits the CPU into this many devices, for mirrored.
    tpu: str | None  # local, a TPU's name, or its hosts' grpc:// addresses.
    cluster_timeout_s: float  # How long multi_worker waits for the other workers at the start.


@logs.shown_for_a_call()
def train(
    data_dir: AnyPath | None,
    model_dir: AnyPath | None,
    *,
    settings: Mapping[str, Any] | None = None,
    config: AnyPath | None = None,
    stop_at_step: int | None = None,
    profile: str | None = None,
    command: Command | None = None,
    **devices: Unpack[DeviceOptions],
) -> TrainResult | None:
    """Train on the data set in `data_dir`, test and export: the run in `model_dir`, which the same call resumes.

    `settings` has values by key, such as {"optimizer.learning_rate": 3e-5}, on top of the YAML preset `config`; a
    section may be a mapping of its own, and None unsets what may be unset. The setting `encoder` has to be that of
    `prepare`. `data_dir` wins over the setting of its name. `stop_at_step` ends the call after this step, with a
    checkpoint. `profile`, such as "20:30", writes a TensorBoard profile of the steps after the first number to the
    second. `command` is for the command line.

    Returns None on a worker that is not the chief. Raises Stopped, with a checkpoint, after an interrupt, after SIGTERM
    and at `stop_at_step`; UsageError, with every problem, for settings, paths and devices that are wrong; UserError for
    data, an encoder or a model_dir that do not fit.
    """
    given = {**(settings or {}), **({} if data_dir is None else {"data_dir": data_dir})}
    problems = []
    if stop_at_step is not None and stop_at_step < 1:
        problems.append(Problem("--stop_at_step", "be at least 1", str(stop_at_step)))
    profiled = profiling.parse_steps(profile, problems)
    request = SessionRequest(
        "train", _as_text(model_dir), given, config=_as_text(config), command=command, problems=problems, **devices
    )
    session = sessions.open_session(request)
    from trainer.train import modes

    values = modes.train(session, request.cluster_timeout_s, stop_at_step, profiled)
    return _describe_run(values, session.files) if values else None


def _describe_run(values: dict[str, Any], files: "RunFiles") -> TrainResult:
    page = fs.join(files.root, "report.html")
    return TrainResult(
        model_dir=files.root,
        export=files.export,
        report=page if fs.exists(page) else "",
        steps=values["steps"],
        best_step=values["best_step"],
        best_metric=values.get("best_metric", ""),  # A run of an earlier version has none.
        seconds=values["seconds"],
        validation=values["validation"],
        test=values["test"],
        notes=values.get("notes", []),
        values=values,
    )


@logs.shown_for_a_call()
def evaluate(
    model_dir: AnyPath | None,
    split: Split = "test",
    *,
    baseline: bool = False,
    predictions: AnyPath | None = None,
    settings: Mapping[str, Any] | None = None,
    command: Command | None = None,
    **devices: Unpack[DeviceOptions],
) -> Evaluation:
    """The metrics of the best weights of the run in `model_dir` on a split: train, validation or test.

    With `baseline`, those of a bag of words too, which learns from the run's own train. `predictions` names a JSONL
    file to write every example's id, label and scores to. The configuration is the run's own; `settings` may say where
    its data_dir and its encoder are by now, or name other data, and turn logging.progress off.

    Raises UsageError, with every problem, for arguments that are wrong; UserError if there is no run that has
    evaluated; Stopped after an interrupt or SIGTERM.
    """
    problems = []
    if split not in get_args(Split):
        problems.append(Problem("--split", f"be one of {', '.join(get_args(Split))}", str(split)))
    request = SessionRequest(
        "evaluate",
        _as_text(model_dir),
        settings or {},
        predictions=_as_text(predictions),
        command=command,
        problems=problems,
        **devices,
    )
    session = sessions.open_session(request)
    from trainer.train import modes

    found = modes.evaluate(session, split, baseline)
    (encoder, metrics), *others = found.rows
    of_baseline = others[0][1] if others else None
    return Evaluation(split, session.config.data_dir, encoder, metrics, of_baseline, found.classes)


@logs.shown_for_a_call()
def report(
    model_dir: AnyPath | None,
    *,
    cross_check: bool = False,
    settings: Mapping[str, Any] | None = None,
    command: Command | None = None,
    **devices: Unpack[DeviceOptions],
) -> list[str]:
    """Write the report of the finished run in `model_dir` again. Returns the paths of its files.

    With `cross_check` it looks for wrong labels in train, too. `settings` are those of `evaluate`. Raises what that
    raises, and UserError if the run is not finished.
    """
    request = SessionRequest("report", _as_text(model_dir), settings or {}, command=command, **devices)
    session = sessions.open_session(request)
    from trainer.train import modes

    return modes.report(session, cross_check)


@logs.shown_for_a_call()
def export(
    model_dir: AnyPath | None,
    *,
    settings: Mapping[str, Any] | None = None,
    command: Command | None = None,
    **devices: Unpack[DeviceOptions],
) -> Export:
    """Export the best weights of the run in `model_dir` again. `settings` are those of `evaluate`.

    Raises what that raises, and UserError if a fresh process does not compute the run's scores with the export.
    """
    request = SessionRequest("export", _as_text(model_dir), settings or {}, command=command, **devices)
    session = sessions.open_session(request)
    from trainer.train import modes

    return Export(session.files.export, modes.export(session))


def _as_text(path: AnyPath | None) -> str:
    return os.fspath(path or "")


@logs.shown_for_a_call()
def load(folder: AnyPath) -> Classifier:
    """Load an export, such as MODEL_DIR/export, once for many predictions.

    Raises UsageError for a path that cannot be, UserError for a folder that holds no export.
    """
    versions.check_installation()
    problems: list[Problem] = []
    path = paths.normalize_path("--model", os.fspath(folder), problems)
    preflight.check_paths([PathUse("--model", path)], problems=problems)
    return load_classifier(path)


def predict(folder: AnyPath, texts: Iterable[str | Sequence[str]]) -> list[Prediction]:
    """Load an export and predict: `load` and `Classifier.predict` in one. Raises what they raise."""
    return load(folder).predict(texts)
