"""Jobs whose processes are killed at random instants of a seeded schedule, and the comparison of two runs."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import preloaded
import tensorflow as tf
from helpers import ROOT, excerpt, free_addresses, keep_first_lines

SAVE_EVERY_STEPS = 20
# Name -> (flags, workers).
STRATEGIES = {
    "cpu": (["--strategy=cpu"], 1),
    "mirrored": (["--strategy=mirrored", "--virtual_devices=3"], 1),  # three does not divide the batch or its sums
    "multi_worker": (["--strategy=multi_worker", "--cluster_timeout=40"], 2),
    "background saves": (["--strategy=cpu", "--set=training.background_saves=true"], 1),
}
# What differs between two equal runs: durations, and how closely the export's process agreed.
NOT_REPRODUCIBLE = (
    *("seconds", "examples_per_second", "input_wait", "padding", "mfu"),
    *("export_difference", "machine"),
)


# --- Processes ------------------------------------------------------------------------------------


@dataclass
class RunningJob:
    """The processes of a job that is running, the chief's first, and the file with their output."""

    model_dir: Path
    processes: list[subprocess.Popen | preloaded.Process]
    log: Path
    started: float = field(default_factory=time.monotonic)

    def wait(self, timeout_s: float) -> list[int]:
        """The exit codes. Raises subprocess.TimeoutExpired, with all processes killed, after the timeout."""
        deadline = time.monotonic() + timeout_s
        try:
            codes = [process.wait(max(0.1, deadline - time.monotonic())) for process in self.processes]
            for code in codes:
                keep_first_lines(code, self.log.read_text())
            return codes
        finally:
            for process in self.processes:
                process.kill()
                process.wait()

    def output(self) -> str:
        """The first and the last lines that the processes wrote."""
        return excerpt(self.log.read_text())


def start_process(
    arguments: list[str], output: IO[str], environment: Mapping[str, str]
) -> subprocess.Popen | preloaded.Process:
    """Start Python with these arguments in the project's root."""
    command = [sys.executable, *arguments]
    with open(os.devnull) as nothing:
        options = {"cwd": ROOT, "env": environment}
        start = preloaded.start if preloaded.can_run(command, options) else subprocess.Popen
        return start(command, stdin=nothing, stdout=output, stderr=output, **options)


def start_workers(
    arguments: list[str], model_dir: Path, log: Path, workers: int, environment: Mapping[str, str] = os.environ
) -> RunningJob:
    """Start Python with these arguments as every worker of a job."""
    addresses = free_addresses(workers)
    processes = []
    with log.open("w") as file:
        for index in range(workers):
            cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            variables = {**environment, **({"TF_CONFIG": json.dumps(cluster)} if workers > 1 else {})}
            processes.append(start_process(arguments, file, variables))
    return RunningJob(model_dir, processes, log)


@dataclass(frozen=True)
class JobCommand:
    """The flags of trainer.task for a job, without its model_dir, and the job's number of workers."""

    flags: list[str]
    workers: int

    def with_settings(self, *settings: str) -> "JobCommand":
        """The same job with more settings, each "section.key=value"."""
        return JobCommand([*self.flags, *(f"--set={setting}" for setting in settings)], self.workers)

    def start(self, model_dir: Path) -> RunningJob:
        """Start every worker. Their output is in a file next to `model_dir`."""
        arguments = ["-m", "trainer.task", *self.flags, f"--model_dir={model_dir}"]
        return start_workers(arguments, model_dir, model_dir.with_suffix(".log"), self.workers)

    def run_to_end(self, model_dir: Path) -> Path:
        """Run the job without interruption. Returns `model_dir`."""
        running = self.start(model_dir)
        assert running.wait(900) == [0] * self.workers, running.output()
        return model_dir

    def run_interrupted(self, model_dir: Path, *names: str, instants: Mapping[str, "Instant"] | None = None) -> Path:
        """Run the job to its end, after a run that gets a signal at each instant in turn. Returns `model_dir`."""
        for name in names:
            running = self.start(model_dir)
            assert send_signal_at(running, name, random.Random(0), instants or INSTANTS), running.output()
            running.wait(60)
            assert not (model_dir / "result.json").exists()
        return self.run_to_end(model_dir)


# --- Instants: what must be on the disk before a process is killed ----------------------------------


def checkpoint_list(model_dir: Path) -> str:
    """The list of committed checkpoints, as TensorFlow writes it. "" if there is none."""
    try:
        return (model_dir / "checkpoints/checkpoint").read_text()
    except FileNotFoundError:
        return ""


def committed_step(model_dir: Path) -> int:
    """The step of the newest committed checkpoint."""
    lines = checkpoint_list(model_dir).splitlines()
    return int(lines[0].rsplit("-", 1)[1].rstrip('"')) if lines else 0


def checkpoint_files(model_dir: Path) -> set[str]:
    """The names of all files in checkpoints/, those of an unfinished save included."""
    return {path.name for path in (model_dir / "checkpoints").rglob("*")}


def count_log_lines(model_dir: Path, split: str) -> int:
    try:
        return (model_dir / "metrics.jsonl").read_text().count(f'"{split}"')
    except FileNotFoundError:
        return 0


@dataclass(frozen=True)
class Instant:
    """An instant in a run at which a process gets a signal."""

    observe: Callable[[Path], object]  # Of the model_dir. The instant begins when the value changes.
    longest_delay_s: float  # The signal is sent within this time after the change.


INSTANTS = {
    "start-up": Instant(lambda model_dir: None, 8.0),  # without waiting for a change
    "training": Instant(checkpoint_list, 0.5),
    "SIGTERM": Instant(checkpoint_list, 0.5),  # the others send SIGKILL
    "during a save": Instant(checkpoint_files, 0.01),
    "evaluation": Instant(lambda model_dir: count_log_lines(model_dir, "train") // 7, 0.3),
    "after an evaluation": Instant(lambda model_dir: count_log_lines(model_dir, "validation"), 0.02),
    "test": Instant(lambda model_dir: count_log_lines(model_dir, "test"), 0.3),
    "export": Instant(lambda model_dir: (model_dir / "export.partial").exists(), 4.0),
    "rename": Instant(lambda model_dir: (model_dir / "export/saved_model.pb").exists(), 0.0),
}
AFTER_TRAINING = ["test", "export", "rename"]


def draw_instants(seed: int, count: int) -> list[str]:
    """Names of instants in the order in which they occur: AFTER_TRAINING comes last."""
    rng = random.Random(seed)
    in_training = [name for name in INSTANTS if name not in AFTER_TRAINING]
    drawn = [rng.choice(in_training) for _ in range(count - len(AFTER_TRAINING))]
    return [*drawn, *AFTER_TRAINING] if count > len(AFTER_TRAINING) else rng.sample(list(INSTANTS), count)


def send_signal_at(
    running: RunningJob, name: str, rng: random.Random, instants: Mapping[str, Instant] = INSTANTS
) -> bool:
    """Wait for an instant, then send the signal to one process, drawn with `rng`. False if the job ended before it."""
    instant = instants[name]
    before = instant.observe(running.model_dir)
    while name != "start-up" and instant.observe(running.model_dir) == before:
        if running.processes[0].poll() is not None or time.monotonic() - running.started > 600:
            return False
        time.sleep(0.001)
    time.sleep(rng.uniform(0, instant.longest_delay_s))
    alive = [process for process in running.processes if process.poll() is None]
    if not alive:
        return False
    rng.choice(alive).send_signal(signal.SIGTERM if name == "SIGTERM" else signal.SIGKILL)
    return True


# --- Comparison -------------------------------------------------------------------------------------


def read_newest_checkpoint(folder: Path) -> dict[str, np.ndarray]:
    """The tensors of the newest checkpoint by key.

    TensorFlow's counter of saves is left out, since only background saves write it.
    """
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(folder)))
    keys = [
        key for key in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in key and "save_counter" not in key
    ]
    return {key: np.asarray(reader.get_tensor(key)) for key in keys}


def reproducible(values: dict) -> dict:
    """A line of metrics.jsonl or a result without what differs between equal runs."""
    return {key: value for key, value in values.items() if key not in NOT_REPRODUCIBLE}


def read_metrics(model_dir: Path, split: str | None = None) -> list[dict]:
    lines = [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if split in (None, line["split"])]


def assert_equal_tensors(folder: Path, expected_folder: Path) -> None:
    """The newest checkpoints in both folders are bit for bit equal."""
    tensors, expected = read_newest_checkpoint(folder), read_newest_checkpoint(expected_folder)
    assert tensors.keys() == expected.keys()
    assert [key for key in tensors if not np.array_equal(tensors[key], expected[key])] == []


def assert_equal_runs(model_dir: Path, expected_dir: Path, *, encoder_moved: bool = False) -> None:
    """Parameters, slots, sums, best weights, metrics.jsonl and result.json are equal, bit for bit.

    With `encoder_moved`, the encoder's name in result.json may differ.
    """
    for series in ("checkpoints", "best"):
        assert_equal_tensors(model_dir / series, expected_dir / series)
    lines, expected_lines = ([reproducible(line) for line in read_metrics(run)] for run in (model_dir, expected_dir))
    assert lines == expected_lines
    results = [reproducible(json.loads((run / "result.json").read_text())) for run in (model_dir, expected_dir)]
    if encoder_moved:
        for result in results:
            del result["encoder"]["name"]
    assert results[0] == results[1]
