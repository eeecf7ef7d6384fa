"""The commands with every path in a bucket give bit for bit the results of local paths, in spite of faults and kills.

Without faults they run on fake-gcs-server, which others wrote; with faults on a simulator of ours. `make test` kills
three processes. `make chaos` kills five more, with a schedule drawn with CHAOS_SEED, and one of two workers.
"""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from fakes import gcs, gcs_server
from helpers import ROOT, excerpt, write_reviews
from interruptions import (
    AFTER_TRAINING,
    INSTANTS,
    Instant,
    RunningJob,
    assert_equal_runs,
    draw_instants,
    send_signal_at,
    start_workers,
)

# A run makes some hundreds of requests. Each has one of these faults with probability FAULT_RATE.
FAULTS = ("status", "reset", "lose reply", "truncate", "flip", "slow", "hang")
FAULT_RATE = 0.1
KILLS = 5
RUN = "gs://bucket/run"


@dataclass(frozen=True)
class Commands:
    """The project's commands, with buckets that a server on the loopback has."""

    environment: Mapping[str, str]  # Of a process that uses the server.
    folder: Path
    run_folder: Path  # What `instants` observe.
    instants: Mapping[str, Instant]

    def run(self, *arguments: object) -> str:
        command = [sys.executable, *map(str, arguments)]
        options = {"cwd": ROOT, "env": self.environment, "text": True, "timeout": 300}
        done = subprocess.run(command, capture_output=True, **options)
        assert done.returncode == 0, excerpt(done.stderr)
        return done.stdout

    def copy(self, *pairs: tuple[object, object]) -> None:
        calls = "; ".join(f"fs.copy_folder({str(source)!r}, {str(target)!r})" for source, target in pairs)
        self.run("-c", f"from trainer.storage import fs; {calls}")

    def start(self, arguments: list[str], workers: int = 1) -> RunningJob:
        return start_workers(arguments, self.run_folder, self.folder / "log", workers, self.environment)

    def run_with_kills(self, arguments: list[str], instants: list[str], rng: random.Random, workers: int = 1) -> None:
        """Run a job to its end, and kill it at each instant in turn."""
        for instant in instants:
            running = self.start(arguments, workers)
            sent = send_signal_at(running, instant, rng, self.instants)
            codes = running.wait(60 if sent else 0.1)
            assert sent, f"{instant}: {codes}, {running.output()}"
            assert -signal.SIGKILL in codes
        running = self.start(arguments, workers)
        assert running.wait(900) == [0] * workers, running.output()


def commands_on(simulator: gcs.Simulator, folder: Path) -> Commands:
    """Commands on the simulator: the instants of interruptions.INSTANTS with SIGKILL, observed in its log."""

    def counter(pattern: str, key: str = "wrote") -> Callable[[Path], int]:
        def count(_: Path) -> int:
            time.sleep(0.05)  # the log is long
            return sum(bool(re.search(pattern, line.get(key, ""))) for line in simulator.log())

        return count

    instants = {
        "start-up": Instant(lambda _: None, 8.0),
        "training": Instant(counter("run/checkpoints/checkpoint"), 0.5),
        "during a save": Instant(counter("run/checkpoints/ckpt-"), 0.01),
        "evaluation": Instant(counter("run/metrics.jsonl"), 0.3),
        "after an evaluation": Instant(counter("run/best/checkpoint"), 0.02),
        "test": Instant(counter(r"GET .*run%2Fbest%2Fckpt-\d+\.data", "request"), 0.3),
        "export": Instant(counter("run/export/"), 0.3),
        "rename": Instant(counter("run/export/saved_model.pb"), 0.0),
    }
    return Commands(simulator.environment(), folder, folder, instants)


def run_all_in_bucket(
    commands: Commands,
    tiny: Path,
    flags: list[str],
    seed: int,
    instants: list[str],
    faults: contextlib.AbstractContextManager,
    export_again: bool = False,
) -> Path:
    """Prepare, train with kills, evaluate, export and predict. Returns a local copy of the bucket.

    `faults` is entered once the encoder and the rows are there.
    """
    folder = commands.folder
    (folder / "source").mkdir()
    write_reviews(folder / "source/reviews.csv", 300)
    commands.copy((tiny, "gs://bucket/encoder"), (folder / "source", "gs://bucket/source"))
    encoder, model = "--encoder=gs://bucket/encoder", f"--model_dir={RUN}"
    with faults:
        source = "--source=gs://bucket/source/reviews.csv"
        commands.run("scripts/prepare_data.py", "--task=csv", source, encoder, "--output=gs://bucket/data")
        settings = [flag for flag in flags if flag.startswith("--set")]
        job = ["-m", "trainer.task", encoder, "--data_dir=gs://bucket/data", model, *settings]
        commands.run_with_kills(job, instants, random.Random(seed))
        predictions = "--predictions=gs://bucket/predictions.jsonl"
        assert "accuracy" in commands.run("-m", "trainer.task", "--mode=evaluate", model, predictions)
        if export_again:
            assert f"{RUN}/export written" in commands.run("-m", "trainer.task", "--mode=export", model)
        scores = commands.run("scripts/predict.py", f"--model={RUN}/export", "--format=jsonl", "a superb film")
    commands.copy(("gs://bucket", folder / "bucket"))
    (folder / "bucket/predicted.json").write_text(scores)
    return folder / "bucket"


def assert_equal_to_local(bucket: Path, prepared: Path, finished_run: Path, evaluated: tuple) -> None:
    """Shards, run and predictions are equal to those of local paths; the export and the events exist."""
    for shard in prepared.glob("*.tfrecord"):
        assert (bucket / "data" / shard.name).read_bytes() == shard.read_bytes()
    manifests = [json.loads((folder / "dataset.json").read_text()) for folder in (bucket / "data", prepared)]
    assert manifests[0]["fingerprint"] == manifests[1]["fingerprint"]
    assert_equal_runs(bucket / "run", finished_run, encoder_moved=True)
    assert not (bucket / "run/.lock").exists()
    assert [json.loads(line) for line in (bucket / "predictions.jsonl").read_text().splitlines()] == evaluated[1]
    assert json.loads((bucket / "predicted.json").read_text())["label"] == "positive"
    assert (bucket / "run/export/saved_model.pb").exists()
    splits = {path.parent.name for path in (bucket / "run/tensorboard").rglob("*tfevents*")}
    assert splits == {"train", "validation", "test"}


def random_faults(simulator: gcs.Simulator, seed: int) -> contextlib.AbstractContextManager:
    return simulator.faults({"do": list(FAULTS), "seed": seed, "rate": FAULT_RATE, "seconds": 0.3})


@pytest.mark.long
def test_a_job_killed_twice_on_another_server_equals_a_local_one(
    tiny, prepared, flags, finished_run, evaluated, tmp_path
):
    with gcs_server.running(tmp_path / "server", "bucket") as server:
        commands = Commands(server.environment(), tmp_path, server.folder / "bucket/run", INSTANTS)
        kills = ["training", "after an evaluation"]
        bucket = run_all_in_bucket(commands, tiny, flags, 1, kills, contextlib.nullcontext(), export_again=True)
    assert_equal_to_local(bucket, prepared, finished_run, evaluated)


def test_a_killed_job_in_a_bucket_with_faults_equals_a_local_one(
    simulator, tiny, prepared, flags, finished_run, evaluated, tmp_path
):
    faults = random_faults(simulator, 1)
    bucket = run_all_in_bucket(commands_on(simulator, tmp_path), tiny, flags, 1, ["training"], faults)
    assert_equal_to_local(bucket, prepared, finished_run, evaluated)
    log = simulator.log()
    # Google's client, and what gets its tokens: TensorFlow's own client reaches no bucket.
    assert {line["agent"].partition("/")[0] for line in log} == {"gcloud-python", "python-requests"}
    assert len([line for line in log if line["outcome"] not in (200, 204, 206, 308, 404)]) > 20


@pytest.mark.chaos
def test_a_job_in_a_bucket_killed_five_times_equals_a_local_one(
    simulator, tiny, prepared, flags, finished_run, evaluated, tmp_path, capsys
):
    seed = int(os.environ.get("CHAOS_SEED", "0"))
    drawn = [name for name in draw_instants(seed, 2 * KILLS) if name not in ("SIGTERM", *AFTER_TRAINING)]
    instants = drawn[: KILLS - len(AFTER_TRAINING)] + AFTER_TRAINING
    commands, faults = commands_on(simulator, tmp_path), random_faults(simulator, seed)
    bucket = run_all_in_bucket(commands, tiny, flags, seed, instants, faults, export_again=True)
    assert_equal_to_local(bucket, prepared, finished_run, evaluated)
    outcomes = [str(line["outcome"]) for line in simulator.log()]
    with capsys.disabled():
        faults = {fault: sum(fault in outcome for outcome in outcomes) for fault in ("503", *FAULTS[1:])}
        print(f"\nseed {seed}: killed at {', '.join(instants)}; faults in {len(outcomes)} requests: {faults}")


@pytest.mark.chaos
def test_two_workers_in_a_bucket_with_one_killed_equal_local_ones(simulator, make_job_command, tiny, tmp_path):
    local = make_job_command("multi_worker", 150)
    commands = commands_on(simulator, tmp_path)
    data = next(flag for flag in local.flags if flag.startswith("--data_dir=")).partition("=")[2]
    commands.copy((tiny, "gs://bucket/encoder"), (data, "gs://bucket/data"))
    rest = [flag for flag in local.flags if not flag.startswith(("--data_dir", "--encoder"))]
    paths = ["--encoder=gs://bucket/encoder", "--data_dir=gs://bucket/data", f"--model_dir={RUN}"]
    arguments = ["-m", "trainer.task", *paths, *rest]
    commands.run_with_kills(arguments, ["training"], random.Random(0), workers=2)
    commands.copy((RUN, tmp_path / "copy"))
    assert_equal_runs(tmp_path / "copy", local.run_to_end(tmp_path / "uninterrupted"), encoder_moved=True)
    assert not (tmp_path / "copy/.lock").exists()


def test_a_run_that_loses_its_permission_fails_with_a_message(simulator, tiny, prepared, flags, tmp_path):
    commands = commands_on(simulator, tmp_path)
    commands.copy((tiny, "gs://bucket/encoder"), (prepared, "gs://bucket/data"))
    settings = [flag for flag in flags if flag.startswith("--set")]
    paths = ["--encoder=gs://bucket/encoder", "--data_dir=gs://bucket/data", f"--model_dir={RUN}"]
    job = ["-m", "trainer.task", *paths, *settings, "--set=training.steps=20"]
    with simulator.faults({"do": "deny", "permission": "storage.objects.create", "match": "metrics.jsonl"}):
        running = commands.start(job)
        assert running.wait(100) == [1]
    output = running.log.read_text()
    assert f"error: {RUN}/metrics.jsonl must allow writing. Received: 403, " in output
    assert "does not have storage.objects.create access" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("corruption", "words"),
    [
        # Truncated at the end of a record: to TensorFlow's reader it is a shorter shard, without any error.
        (
            "data[: end_of_record(data, 50)]",
            "00001-of-00004.tfrecord must have the {size:,} bytes of its manifest. Received: {truncated:,} bytes.",
        ),
        (
            "data[:-1] + bytes([data[-1] ^ 255])",
            "gs://bucket/data/train-00001-of-00004.tfrecord must have the {size:,} bytes and the CRC32C ",
        ),
    ],
)
def test_a_corrupt_shard_stops_the_run_before_it_begins(simulator, prepared, tmp_path, corruption, words):
    commands = commands_on(simulator, tmp_path)
    commands.run(
        "-c",
        f"""
import struct
from trainer.storage import fs
def end_of_record(data, records):
    offset = 0
    for _ in range(records):
        offset += 16 + struct.unpack_from("<Q", data, offset)[0]
    return offset
fs.copy_folder("{prepared}", "gs://bucket/data")
data = fs.read_bytes("gs://bucket/data/train-00001-of-00004.tfrecord")
corrupt = {corruption}
fs.write_bytes("gs://bucket/data/train-00001-of-00004.tfrecord", corrupt)
open("{tmp_path}/sizes", "w").write(f"{{len(corrupt)}} {{len(data)}}")
""",
    )
    truncated, size = map(int, (tmp_path / "sizes").read_text().split())
    running = commands.start(["-m", "trainer.task", "--data_dir=gs://bucket/data", f"--model_dir={RUN}"])
    assert running.wait(60) == [1]
    assert words.format(truncated=truncated, size=size) in running.log.read_text()
    written = [line.get("wrote", "") for line in simulator.log()]
    assert not [
        name for name in written if name.startswith("run/") and "/." not in name
    ]  # But the lock, and the check.
