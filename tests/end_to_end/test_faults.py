"""Processes killed at random instants of a seeded schedule: the run must end bit for bit like one never disturbed.

Four kills in `make test`; `make chaos` gives every job KILLS of them, one after another in one run.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers import ROOT

KILLS = 20
SAVE_EVERY = 20
# Seconds from the death of a worker to the exit of the others.
NOTICED = 60
CLOCK = ("seconds", "examples_per_second", "export_difference")


# --- Jobs: the same command for each of a job's processes -----------------------------------------


@dataclass
class Running:
    """The processes of a job under way, the chief's first, and what they say."""

    model_dir: Path
    children: list[subprocess.Popen]
    log: Path
    begun: float = field(default_factory=time.monotonic)

    def wait(self, seconds: float) -> list[int]:
        """The exit codes; raises subprocess.TimeoutExpired, with all of them killed, after so many seconds."""
        until = time.monotonic() + seconds
        try:
            return [child.wait(max(0.1, until - time.monotonic())) for child in self.children]
        finally:
            for child in self.children:
                child.kill()
                child.wait()


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def start(flags: list[str], model_dir: Path, workers: int) -> Running:
    log = model_dir.with_suffix(".log")
    addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)]
    children = []
    with log.open("w") as file:
        for index in range(workers):
            cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            own = {"TF_CONFIG": json.dumps(cluster)} if workers > 1 else {}
            command = [sys.executable, "-m", "trainer.task", *flags, f"--model_dir={model_dir}"]
            children.append(subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, env={**os.environ, **own}))
    return Running(model_dir, children, log)


@dataclass(frozen=True)
class Job:
    flags: list[str]
    workers: int
    steps: int


STRATEGIES = {
    "cpu": (["--strategy=cpu"], 1),
    "mirrored": (["--strategy=mirrored", "--virtual_devices=3"], 1),  # a number that divides neither batch nor sums
    "multi_worker": (["--strategy=multi_worker", "--cluster_timeout=40"], 2),
    "background saves": (["--strategy=cpu", "--set=training.background_saves=true"], 1),
}


@pytest.fixture(scope="module")
def job(tiny, prepared) -> Callable[[str, int], Job]:
    keys = (
        *("training.log_every=7", f"training.save_every={SAVE_EVERY}", "training.eval_every=50"),
        *("data.batch_size=16", "data.seq_length=24", "optimizer.learning_rate=1e-3"),
        "logging.progress=off",
    )
    common = [f"--encoder={tiny}", f"--data_dir={prepared}", *(f"--set={key}" for key in keys)]

    def make(strategy: str, steps: int) -> Job:
        flags, workers = STRATEGIES[strategy]
        return Job([*common, *flags, f"--set=training.steps={steps}"], workers, steps)

    return make


# --- Instants: what has to be seen on the disk before a process is killed --------------------------


def newest(model_dir: Path) -> str:
    """The list of committed checkpoints."""
    try:
        return (model_dir / "checkpoints/checkpoint").read_text()
    except FileNotFoundError:
        return ""


def written(model_dir: Path) -> set[str]:
    """Every file of the checkpoints, those under way included."""
    return {path.name for path in (model_dir / "checkpoints").rglob("*")}


def logged(model_dir: Path, split: str) -> int:
    try:
        return (model_dir / "metrics.jsonl").read_text().count(f'"{split}"')
    except FileNotFoundError:
        return 0


# name -> (what changes at that instant, the longest wait after the change in seconds); SIGKILL, but where it says so.
Instants = dict[str, tuple[Callable[[Path], object], float]]
INSTANTS: Instants = {
    "start-up": (lambda model_dir: None, 8.0),
    "training": (newest, 0.5),  # after a commit
    "SIGTERM": (newest, 0.5),
    "during a save": (written, 0.01),
    "evaluation": (lambda model_dir: logged(model_dir, "train") // 7, 0.3),
    "after an evaluation": (lambda model_dir: logged(model_dir, "validation"), 0.02),
    "test": (lambda model_dir: logged(model_dir, "test"), 0.3),
    "export": (lambda model_dir: (model_dir / "export.partial").exists(), 4.0),
    "rename": (lambda model_dir: (model_dir / "export/saved_model.pb").exists(), 0.0),
}


def schedule(seed: int, kills: int) -> list[str]:
    """Instants in the order in which a run meets them: the last three come when training is over."""
    rng = random.Random(seed)
    late = ["test", "export", "rename"]
    early = [name for name in INSTANTS if name not in late]
    chosen = [rng.choice(early) for _ in range(kills - len(late))]
    return [*chosen, *late] if kills > len(late) else rng.sample([*early, *late], kills)


def send_at(running: Running, instant: str, rng: random.Random, instants: Instants = INSTANTS) -> bool:
    """Wait for the instant, then send the signal to one process, chosen by `rng`. False if the job ended before it."""
    look, longest = instants[instant]
    before = look(running.model_dir)
    waited = instant == "start-up"
    while not waited:
        if running.children[0].poll() is not None or time.monotonic() - running.begun > 200:
            return False
        waited = look(running.model_dir) != before
        time.sleep(0.001)
    time.sleep(rng.uniform(0, longest))
    left = [child for child in running.children if child.poll() is None]  # the chief alone exports
    if not left:
        return False
    victim = rng.choice(left)
    victim.send_signal(signal.SIGTERM if instant == "SIGTERM" else signal.SIGKILL)
    return True


# --- What must be the same --------------------------------------------------------------------------


def tensors(folder: Path) -> dict[str, np.ndarray]:
    """The newest checkpoint's; without TensorFlow's counter of saves, which it has after a save in the background."""
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(folder)))
    names = [k for k in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in k and "save_counter" not in k]
    return {k: np.asarray(reader.get_tensor(k)) for k in names}


def without_clock(row: dict) -> dict:
    return {key: value for key, value in row.items() if key not in CLOCK}


def assert_same(model_dir: Path, expected: Path) -> None:
    """Parameters, slots, sums, best weights, metrics.jsonl and result.json, bit for bit; clocks apart."""
    for series in ("checkpoints", "best"):
        ours, theirs = tensors(model_dir / series), tensors(expected / series)
        assert ours.keys() == theirs.keys()
        assert [key for key in ours if not np.array_equal(ours[key], theirs[key])] == []
    for name in ("metrics.jsonl", "result.json"):
        ours, theirs = (
            [without_clock(json.loads(line)) for line in text]
            for text in (
                (folder / name).read_text().splitlines() if name.endswith("l") else [(folder / name).read_text()]
                for folder in (model_dir, expected)
            )
        )
        assert ours == theirs


@dataclass
class Met:
    """What met a disturbed run."""

    instants: list[str] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)  # steps logged, and then done again
    noticed: list[float] = field(default_factory=list)  # seconds from a worker's death to the others' exit


def disturbed(wanted: Job, model_dir: Path, instants: list[str], seed: int) -> Met:
    """Run the job to its end with a kill at each instant in turn."""
    rng = random.Random(seed)
    met = Met()
    for instant in instants:
        step = committed(model_dir)
        running = start(wanted.flags, model_dir, wanted.workers)
        sent = send_at(running, instant, rng)
        began = time.monotonic()
        codes = running.wait(NOTICED if sent else 300)
        said = running.log.read_text()[-3000:]
        if sent:
            met.instants.append(instant)
            met.lost.append(last_logged(model_dir) - committed(model_dir))
            met.noticed.append(time.monotonic() - began)
            assert codes.count(-signal.SIGKILL) == (instant != "SIGTERM"), said
            # A worker that is left ends with 75, or had already done its part, or has waited for the other in vain.
            left = [code for code in codes if code != -signal.SIGKILL]
            assert set(left) <= {"SIGTERM": {75}, "start-up": {75, 1}}.get(instant, {75, 0}), said
            assert ("stopped" in said) == (75 in left), said
            assert ("Every worker must be reached" in said) == (1 in left), said
        assert committed(model_dir) >= step, "a checkpoint was lost"
    running = start(wanted.flags, model_dir, wanted.workers)
    assert running.wait(300) == [0] * wanted.workers, running.log.read_text()[-3000:]
    return met


def last_logged(model_dir: Path) -> int:
    """The step of the last line of metrics.jsonl."""
    try:
        lines = (model_dir / "metrics.jsonl").read_text().splitlines()
    except FileNotFoundError:
        lines = []
    return json.loads(lines[-1])["step"] if lines else 0


def committed(model_dir: Path) -> int:
    """The newest committed checkpoint's step."""
    lines = newest(model_dir).splitlines()
    return int(lines[0].rsplit("-", 1)[1].rstrip('"')) if lines else 0


# --- Tests ------------------------------------------------------------------------------------------


def run_undisturbed(wanted: Job, model_dir: Path) -> Path:
    running = start(wanted.flags, model_dir, wanted.workers)
    assert running.wait(300) == [0] * wanted.workers, running.log.read_text()[-3000:]
    return model_dir


@pytest.mark.parametrize(
    ("strategy", "instants"),
    [("cpu", ["during a save", "export"]), ("mirrored", ["evaluation"]), ("multi_worker", ["training", "SIGTERM"])],
)
def test_a_killed_run_ends_like_one_that_was_not(job, tmp_path, strategy, instants):
    wanted = job(strategy, 150)
    met = disturbed(wanted, tmp_path / "killed", instants, seed=1)
    assert met.instants == instants
    assert max(met.lost) <= SAVE_EVERY
    assert_same(tmp_path / "killed", run_undisturbed(wanted, tmp_path / "undisturbed"))


@pytest.mark.chaos
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_killed_twenty_times_ends_like_one_that_was_not(job, tmp_path, strategy, capsys):
    seed = int(os.environ.get("CHAOS_SEED", "0"))
    wanted = job(strategy, 2000)
    met = disturbed(wanted, tmp_path / "killed", schedule(seed, KILLS + 2), seed)
    with capsys.disabled():
        counts = ", ".join(f"{name} {met.instants.count(name)}" for name in INSTANTS)
        print(f"\n{strategy}: seed {seed}, {len(met.instants)} kills ({counts}); ", end="")
        print(
            f"at most {max(met.lost)} logged steps lost, the last process gone after at most {max(met.noticed):.1f} s"
        )
    assert len(met.instants) >= KILLS
    assert strategy == "background saves" or max(met.lost) <= SAVE_EVERY
    assert_same(tmp_path / "killed", run_undisturbed(wanted, tmp_path / "undisturbed"))
