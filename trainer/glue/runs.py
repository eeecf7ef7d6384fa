"""The runs of a suite: the data set of a task, and a run for each seed, in processes of their own.

The same call again continues: a data set that is complete is kept, a run resumes, and one that is finished is left.
"""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from trainer import child_process
from trainer.data import manifests, tasks
from trainer.glue import processes
from trainer.glue.suite import SUITE
from trainer.runtime.signals import StopRequest
from trainer.storage import fs


@dataclasses.dataclass(frozen=True)
class SuiteOptions:
    """What is run and where. The fields are the flags of scripts/glue.py."""

    glue_dir: str  # Of this machine.
    output: str
    encoder: str
    preprocess: str = ""
    config: str = ""
    strategy: str = "auto"
    overrides: tuple[str, ...] = ()  # "section.key=value", the flag --set.


def data_folder(options: SuiteOptions, task: str) -> str:
    return fs.join(options.output, "data", task)


def run_folder(options: SuiteOptions, task: str, seed: int) -> str:
    return fs.join(options.output, "runs", task, f"seed_{seed}")


def task_overrides(task: str, overrides: Sequence[str]) -> list[str]:
    """The settings of a task, and after them those of the user, which win."""
    spec = SUITE[task]
    given = {each.partition("=")[0].strip() for each in overrides}
    own = [f"training.best_metric={spec.best_metric}"]
    # Either of the two replaces a preset's other, but not one that is set beside it.
    if spec.epochs and not given & {"training.epochs", "training.steps"}:
        own.append(f"training.epochs={spec.epochs}")
    return [*own, *overrides]


def prepare_task(options: SuiteOptions, task: str, script: str, request: StopRequest) -> None:
    """Prepare the data set of a task unless it is there. `script` is the path of prepare_data.py."""
    folder = data_folder(options, task)
    if fs.exists(fs.join(folder, manifests.MANIFEST_FILE)):
        return
    arguments = [f"--task={task}", f"--source={options.glue_dir}", f"--output={folder}", f"--encoder={options.encoder}"]
    arguments += [f"--preprocess={options.preprocess}"] if options.preprocess else []
    arguments += [f"--{each.strip()}" for each in options.overrides if each.strip().startswith("encoders.mirror=")]
    arguments += ["--bad_rows=skip"] if SUITE[task].skips_bad_rows else []
    processes.run(f"The preparation of {task}", [sys.executable, script, *arguments], request)


def train(options: SuiteOptions, task: str, seed: int, request: StopRequest) -> None:
    """Train, evaluate and export the run of a task and seed, or what is missing of it."""
    folder = run_folder(options, task, seed)
    arguments = [f"--data_dir={data_folder(options, task)}", f"--model_dir={folder}", f"--encoder={options.encoder}"]
    arguments += [f"--seed={seed}", f"--strategy={options.strategy}"]
    arguments += [f"--preprocess={options.preprocess}"] if options.preprocess else []
    arguments += [f"--config={options.config}"] if options.config else []
    arguments += [f"--set={each}" for each in task_overrides(task, options.overrides)]
    processes.run(f"The run in {folder}", child_process.command("trainer.task", *arguments), request)


def read_result(options: SuiteOptions, task: str, seed: int) -> dict[str, Any]:
    """result.json of a finished run."""
    return fs.read_json(fs.join(run_folder(options, task, seed), "result.json"))


def best_seed(results: dict[int, dict[str, Any]]) -> int:
    """The seed whose run is best on validation, by its own best_metric; the lower loss, and the first, of equals."""

    def rank(seed: int) -> tuple[float, float]:
        metric, validation = results[seed]["best_metric"], results[seed]["validation"]
        return tasks.rank(metric, validation[metric], validation["loss"])

    return max(results, key=rank)
