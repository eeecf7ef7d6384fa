"""The commands as a user types them, every path in a bucket: they end bit for bit as on the disk, faults or not."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, write_reviews
from test_faults import tensors, without_clock

# Any request may meet one of these; a run meets some hundreds of requests, an operation six of the same at most.
FAULTS = ("status", "reset", "lose reply", "truncate", "flip", "slow")
RATE = 0.05


class Commands:
    """The project's commands, run against a simulator."""

    def __init__(self, simulator):
        self.simulator = simulator
        self.options = {"cwd": ROOT, "env": simulator.environment(), "text": True}

    def run(self, *arguments: object) -> str:
        done = subprocess.run([sys.executable, *map(str, arguments)], **self.options, capture_output=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def killed_after(self, name: str, *arguments: object) -> None:
        """Run until the object `name` is written, then kill -9."""
        command = [sys.executable, *map(str, arguments)]
        with subprocess.Popen(command, **self.options, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
            end = time.monotonic() + 200
            while not any(line.get("wrote") == name for line in self.simulator.log()):
                assert child.poll() is None, child.stdout.read()[-3000:]
                assert time.monotonic() < end
                time.sleep(0.1)
            child.send_signal(signal.SIGKILL)

    def copy(self, source: str, target: str) -> None:
        self.run("-c", f"from trainer import storage; storage.copy_folder({source!r}, {target!r})")


def on_the_bucket(simulator, tiny: Path, folder: Path, flags: list[str], faults: list[dict]) -> Path:
    """Prepare, train, kill -9, resume, evaluate, export and predict, under `faults`; a copy of the bucket here."""
    commands = Commands(simulator)
    (folder / "source").mkdir()
    write_reviews(folder / "source/reviews.csv", 300)
    commands.copy(f"{tiny}", "gs://bucket/encoder")
    commands.copy(f"{folder / 'source'}", "gs://bucket/source")
    encoder, model = "--encoder=gs://bucket/encoder", "--model_dir=gs://bucket/run"
    with simulator.faults(*faults):
        source = "--source=gs://bucket/source/reviews.csv"
        commands.run("scripts/prepare_data.py", "--task=csv", source, encoder, "--output=gs://bucket/data")
        settings = [flag for flag in flags if flag.startswith("--set")]
        job = ["-m", "trainer.task", encoder, "--data_dir=gs://bucket/data", model, *settings]
        commands.killed_after("run/checkpoints/checkpoint", *job)
        assert "finished: 100 steps" in commands.run(*job)
        predictions = "--predictions=gs://bucket/predictions.jsonl"
        evaluated = commands.run("-m", "trainer.task", "--mode=evaluate", model, predictions)
        exported = commands.run("-m", "trainer.task", "--mode=export", model)
        predicted = commands.run(
            "scripts/predict.py", "--model=gs://bucket/run/export", "--format=jsonl", "a superb film"
        )
    commands.copy("gs://bucket", f"{folder / 'bucket'}")
    assert "accuracy" in evaluated
    assert "gs://bucket/run/export written" in exported
    (folder / "bucket/predicted.json").write_text(predicted)
    return folder / "bucket"


def assert_as_on_the_disk(bucket: Path, prepared: Path, finished_run: Path, evaluated: tuple) -> None:
    """Shards, parameters, slots, best weights, metrics.jsonl, result.json, predictions: bit for bit, clocks apart."""
    for shard in prepared.glob("*.tfrecord"):
        assert (bucket / "data" / shard.name).read_bytes() == shard.read_bytes()
    fingerprints = {
        json.loads((folder / "dataset.json").read_text())["fingerprint"] for folder in (bucket / "data", prepared)
    }
    assert len(fingerprints) == 1
    for series in ("checkpoints", "best"):
        ours, theirs = tensors(bucket / "run" / series), tensors(finished_run / series)
        assert ours.keys() == theirs.keys()
        assert [key for key in ours if not np.array_equal(ours[key], theirs[key])] == []
    ours, theirs = (
        [without_clock(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (bucket / "run", finished_run)
    )
    assert ours == theirs
    ours, theirs = (json.loads((folder / "result.json").read_text()) for folder in (bucket / "run", finished_run))
    assert ours["encoder"].pop("name") == "gs://bucket/encoder"
    theirs["encoder"].pop("name")
    assert without_clock(ours) == without_clock(theirs)
    assert [json.loads(line) for line in (bucket / "predictions.jsonl").read_text().splitlines()] == evaluated[1]
    assert json.loads((bucket / "predicted.json").read_text())["label"] == "positive"
    assert (bucket / "run/export/saved_model.pb").exists()
    assert not (bucket / "run/.lock").exists()


def test_a_job_in_a_bucket_killed_and_resumed_ends_as_on_the_disk(
    simulator, tiny, prepared, flags, finished_run, evaluated, tmp_path
):
    bucket = on_the_bucket(simulator, tiny, tmp_path, flags, [])
    assert_as_on_the_disk(bucket, prepared, finished_run, evaluated)


@pytest.mark.parametrize("seed", [1])
def test_so_does_one_under_a_schedule_of_faults(
    simulator, tiny, prepared, flags, finished_run, evaluated, tmp_path, seed
):
    faults = [{"do": list(FAULTS), "seed": seed, "rate": RATE, "seconds": 0.3}]
    bucket = on_the_bucket(simulator, tiny, tmp_path, flags, faults)
    assert_as_on_the_disk(bucket, prepared, finished_run, evaluated)
    met = [
        str(line["outcome"])
        for line in simulator.log()
        if str(line["outcome"]) not in ("200", "204", "206", "308", "404")
    ]
    assert len(met) > 20
