"""The commands as a user types them, every path in a bucket: they end bit for bit as on the disk, faults and kills or
not.

One kill in `make test`; `make chaos` has five, at instants from a seed (CHAOS_SEED), and two workers.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from fakes import gcs
from helpers import ROOT, write_reviews
from test_faults import Instants, Running, free_ports, run_undisturbed, schedule, send_at, tensors, without_clock
from test_faults import job as job  # a fixture

# Any request may meet one of these; a run meets some hundreds of requests, an operation six of the same at most.
FAULTS = ("status", "reset", "lose reply", "truncate", "flip", "slow", "hang")
RATE = 0.1
KILLS = 5
RUN = "gs://bucket/run"


@dataclass(frozen=True)
class Commands:
    """The project's commands, run against a simulator."""

    simulator: gcs.Simulator
    folder: Path

    def run(self, *arguments: object) -> str:
        command = [sys.executable, *map(str, arguments)]
        options = {"cwd": ROOT, "env": self.simulator.environment(), "text": True, "timeout": 300}
        done = subprocess.run(command, capture_output=True, **options)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def copy(self, *pairs: tuple[object, object]) -> None:
        asked = "; ".join(f"fs.copy_folder({str(source)!r}, {str(target)!r})" for source, target in pairs)
        self.run("-c", f"from trainer.storage import fs; {asked}")

    def start(self, job: list[str], workers: int = 1) -> Running:
        addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)]
        log = self.folder / "log"
        children = []
        with log.open("w") as file:
            for index in range(workers):
                cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
                own = {"TF_CONFIG": json.dumps(cluster)} if workers > 1 else {}
                environment = {**self.simulator.environment(), **own}
                command = [sys.executable, *job]
                children.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file))
        return Running(self.folder, children, log)

    def killed(self, job: list[str], instants: list[str], rng: random.Random, workers: int = 1) -> None:
        """Run a job to its end, with a kill -9 at each instant in turn."""
        for instant in instants:
            running = self.start(job, workers)
            sent = send_at(running, instant, rng, self.instants())
            codes = running.wait(60 if sent else 0.1)
            assert sent, f"{instant}: {codes}, {running.log.read_text()[-3000:]}"
            assert -signal.SIGKILL in codes
        running = self.start(job, workers)
        assert running.wait(300) == [0] * workers, running.log.read_text()[-3000:]

    def instants(self) -> Instants:
        """Those of test_faults that kill, as the requests show them."""

        def count(pattern: str, key: str = "wrote") -> Callable[[Path], int]:
            def look(_: Path) -> int:
                time.sleep(0.05)  # the log is long
                return sum(bool(re.search(pattern, line.get(key, ""))) for line in self.simulator.log())

            return look

        return {
            "start-up": (lambda _: None, 8.0),
            "training": (count("run/checkpoints/checkpoint"), 0.5),
            "during a save": (count(r"POST .*/upload/.*run%2Fcheckpoints%2Fckpt-", "request"), 0.01),
            "evaluation": (count("run/metrics.jsonl"), 0.3),
            "after an evaluation": (count("run/best/checkpoint"), 0.02),
            "test": (count(r"GET .*run%2Fbest%2Fckpt-\d+\.data", "request"), 0.3),
            "export": (count("run/export/"), 0.3),
            "rename": (count("run/export/saved_model.pb"), 0.0),
        }


def on_the_bucket(
    commands: Commands, tiny: Path, flags: list[str], seed: int, instants: list[str], more: bool = False
) -> Path:
    """Prepare, train, kill -9, resume, evaluate, export and predict, under faults; a copy of the bucket here."""
    folder = commands.folder
    (folder / "source").mkdir()
    write_reviews(folder / "source/reviews.csv", 300)
    commands.copy((tiny, "gs://bucket/encoder"), (folder / "source", "gs://bucket/source"))
    encoder, model = "--encoder=gs://bucket/encoder", f"--model_dir={RUN}"
    with commands.simulator.faults({"do": list(FAULTS), "seed": seed, "rate": RATE, "seconds": 0.3}):
        source = "--source=gs://bucket/source/reviews.csv"
        commands.run("scripts/prepare_data.py", "--task=csv", source, encoder, "--output=gs://bucket/data")
        settings = [flag for flag in flags if flag.startswith("--set")]
        job = ["-m", "trainer.task", encoder, "--data_dir=gs://bucket/data", model, *settings]
        commands.killed(job, instants, random.Random(seed))
        predictions = "--predictions=gs://bucket/predictions.jsonl"
        assert "accuracy" in commands.run("-m", "trainer.task", "--mode=evaluate", model, predictions)
        if more:
            assert f"{RUN}/export written" in commands.run("-m", "trainer.task", "--mode=export", model)
        scores = commands.run("scripts/predict.py", f"--model={RUN}/export", "--format=jsonl", "a superb film")
    commands.copy(("gs://bucket", folder / "bucket"))
    (folder / "bucket/predicted.json").write_text(scores)
    return folder / "bucket"


def assert_same_run(ours: Path, theirs: Path) -> None:
    """Parameters, slots, best weights, metrics.jsonl, result.json: bit for bit, clocks and the encoder's name apart."""
    for series in ("checkpoints", "best"):
        there, here = tensors(theirs / series), tensors(ours / series)
        assert here.keys() == there.keys()
        assert [key for key in here if not np.array_equal(here[key], there[key])] == []
    here, there = (
        [without_clock(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (ours, theirs)
    )
    assert here == there
    here, there = (without_clock(json.loads((folder / "result.json").read_text())) for folder in (ours, theirs))
    del here["encoder"]["name"], there["encoder"]["name"]
    assert here == there
    assert not (ours / ".lock").exists()


def assert_as_on_the_disk(bucket: Path, prepared: Path, finished_run: Path, evaluated: tuple) -> None:
    """The shards, the run, its predictions, its export and its events."""
    for shard in prepared.glob("*.tfrecord"):
        assert (bucket / "data" / shard.name).read_bytes() == shard.read_bytes()
    manifests = [json.loads((folder / "dataset.json").read_text()) for folder in (bucket / "data", prepared)]
    assert manifests[0]["fingerprint"] == manifests[1]["fingerprint"]
    assert_same_run(bucket / "run", finished_run)
    assert [json.loads(line) for line in (bucket / "predictions.jsonl").read_text().splitlines()] == evaluated[1]
    assert json.loads((bucket / "predicted.json").read_text())["label"] == "positive"
    assert (bucket / "run/export/saved_model.pb").exists()
    assert {path.parent.name for path in (bucket / "run/tensorboard").rglob("*tfevents*")} == {
        "train",
        "validation",
        "test",
    }


def test_a_job_in_a_bucket_under_faults_killed_and_resumed_ends_as_on_the_disk(
    simulator, tiny, prepared, flags, finished_run, evaluated, tmp_path
):
    bucket = on_the_bucket(Commands(simulator, tmp_path), tiny, flags, 1, ["training"])
    assert_as_on_the_disk(bucket, prepared, finished_run, evaluated)
    met = [line["outcome"] for line in simulator.log() if line["outcome"] not in (200, 204, 206, 308, 404)]
    assert len(met) > 20


@pytest.mark.chaos
def test_a_job_in_a_bucket_killed_five_times_ends_as_on_the_disk(
    simulator, tiny, prepared, flags, finished_run, evaluated, tmp_path, capsys
):
    seed = int(os.environ.get("CHAOS_SEED", "0"))
    drawn = schedule(seed, 2 * KILLS)
    instants = [name for name in drawn[:-3] if name != "SIGTERM"][: KILLS - 3] + drawn[-3:]
    bucket = on_the_bucket(Commands(simulator, tmp_path), tiny, flags, seed, instants, more=True)
    assert_as_on_the_disk(bucket, prepared, finished_run, evaluated)
    outcomes = [str(line["outcome"]) for line in simulator.log()]
    with capsys.disabled():
        met = {what: sum(what in outcome for outcome in outcomes) for what in ("503", *FAULTS[1:])}
        print(f"\nseed {seed}: killed at {', '.join(instants)}; of {len(outcomes)} requests met {met}")


@pytest.mark.chaos
def test_two_workers_on_a_bucket_one_of_them_killed_end_as_on_the_disk(simulator, job, tiny, tmp_path):
    wanted = job("multi_worker", 150)
    commands = Commands(simulator, tmp_path)
    data = next(flag for flag in wanted.flags if flag.startswith("--data_dir=")).partition("=")[2]
    commands.copy((tiny, "gs://bucket/encoder"), (data, "gs://bucket/data"))
    rest = [flag for flag in wanted.flags if not flag.startswith(("--data_dir", "--encoder"))]
    paths = ["--encoder=gs://bucket/encoder", "--data_dir=gs://bucket/data", f"--model_dir={RUN}"]
    commands.killed(["-m", "trainer.task", *paths, *rest], ["training"], random.Random(0), workers=2)
    commands.copy((RUN, tmp_path / "copy"))
    assert_same_run(tmp_path / "copy", run_undisturbed(wanted, tmp_path / "undisturbed"))


def test_a_run_whose_permission_is_taken_away_says_so(simulator, tiny, prepared, flags, tmp_path):
    commands = Commands(simulator, tmp_path)
    commands.copy((tiny, "gs://bucket/encoder"), (prepared, "gs://bucket/data"))
    settings = [flag for flag in flags if flag.startswith("--set")]
    paths = ["--encoder=gs://bucket/encoder", "--data_dir=gs://bucket/data", f"--model_dir={RUN}"]
    job = ["-m", "trainer.task", *paths, *settings, "--set=training.steps=20"]
    with simulator.faults({"do": "deny", "permission": "storage.objects.create", "match": "metrics.jsonl"}):
        running = commands.start(job)
        assert running.wait(100) == [1]
    said = running.log.read_text()
    assert f"error: {RUN}/metrics.jsonl must allow writing. Received: 403, " in said
    assert "does not have storage.objects.create access" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        # At the edge of a record: TensorFlow's own reader takes it for a shorter shard, and says nothing.
        (
            "data[: edge(data, 50)]",
            "train-00001-of-00004.tfrecord must have the {size:,} bytes of its manifest. Received: {cut:,} bytes.",
        ),
        (
            "data[:-1] + bytes([data[-1] ^ 255])",
            "gs://bucket/data/train-00001-of-00004.tfrecord must have the {size:,} bytes and the CRC32C ",
        ),
    ],
)
def test_a_shard_that_has_lost_records_or_changed_stops_the_run_before_it_begins(
    simulator, prepared, tmp_path, damage, words
):
    commands = Commands(simulator, tmp_path)
    commands.run(
        "-c",
        f"""
import struct
from trainer.storage import fs
def edge(data, records):
    place = 0
    for _ in range(records):
        place += 16 + struct.unpack_from("<Q", data, place)[0]
    return place
fs.copy_folder("{prepared}", "gs://bucket/data")
data = fs.read_bytes("gs://bucket/data/train-00001-of-00004.tfrecord")
damaged = {damage}
fs.write_bytes("gs://bucket/data/train-00001-of-00004.tfrecord", damaged)
open("{tmp_path}/sizes", "w").write(f"{{len(damaged)}} {{len(data)}}")
""",
    )
    cut, size = map(int, (tmp_path / "sizes").read_text().split())
    running = commands.start(["-m", "trainer.task", "--data_dir=gs://bucket/data", f"--model_dir={RUN}"])
    assert running.wait(60) == [1]
    assert words.format(cut=cut, size=size) in running.log.read_text()
    assert not [
        line for line in simulator.log() if line.get("wrote", "").startswith("run/") and "lock" not in line["wrote"]
    ]
