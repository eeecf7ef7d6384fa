"""Fixtures that cost seconds: tiny encoders, made once a session in processes of their own."""

import csv
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gcs
import pytest
from filelock import FileLock

import trainer  # noqa: F401  sets TF_USE_LEGACY_KERAS before anything imports TensorFlow

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """A function (name, make) -> a folder that `make` filled once, for all the processes that tests run in."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = root / name, root / f"{name}.done"
        with FileLock(root / f"{name}.lock"):
            if not done.exists():
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def make_encoder(made_once):
    """A function preset -> the folder of a random encoder in the Hub's format, made at most once."""

    def make(preset: str) -> Path:
        def run(folder: Path) -> None:
            python("scripts/import_encoder.py", f"--source=random:{preset}", f"--output={folder / preset}", check=True)

        return made_once(f"encoder_{preset}", run) / preset

    return make


@pytest.fixture(scope="session")
def tiny(make_encoder) -> Path:
    """The folder of a 2-layer BERT with random weights: encoder/ and preprocess/."""
    return make_encoder("tiny")


@pytest.fixture(scope="session")
def simulator_process(tmp_path_factory):
    """Google Cloud Storage on the loopback, for all tests of the session."""
    with gcs.running(tmp_path_factory.mktemp("gcs")) as simulator:
        yield simulator


@pytest.fixture
def simulator(simulator_process):
    """The same, with nothing in it but the bucket gs://bucket."""
    simulator_process.ask("wipe", {})
    simulator_process.bucket("bucket")
    return simulator_process


GOOD, BAD = ("wonderful", "brilliant", "superb"), ("awful", "dull", "dreadful")
PLAIN = "the a this film movie plot actor scene camera story music house city friend".split()  # noqa: SIM905


def review(rng: random.Random, positive: bool) -> str:
    """A text of 5 to 40 words, a few of which tell its label."""
    words = rng.choices(PLAIN, k=rng.randint(4, 36)) + rng.choices(GOOD if positive else BAD, k=rng.randint(1, 4))
    rng.shuffle(words)
    return " ".join(words)


def write_reviews(path: Path, rows: int, seed: int = 0) -> Path:
    """A CSV of numbered reviews, no two alike, with their labels."""
    rng = random.Random(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(rows):
            positive = rng.random() < 0.5
            writer.writerow([f"{number}: {review(rng, positive)}.", "positive" if positive else "negative"])
    return path


def python(*arguments: str | Path, **options) -> subprocess.CompletedProcess:
    """Run Python with these arguments in a process of its own, in the project's root."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, **{"cwd": ROOT, "capture_output": True, "text": True, "timeout": 300, **options})


@pytest.fixture(scope="session")
def prepared(tiny, made_once) -> Path:
    """A data set of 300 reviews: 240 to train on, in 4 shards, 30 to validate, 30 to test."""

    def run(folder: Path) -> None:
        source = write_reviews(folder / "reviews.csv", 300)
        arguments = ["--task=csv", f"--source={source}", f"--encoder={tiny}", f"--output={folder / 'data'}"]
        python("scripts/prepare_data.py", *arguments, check=True)

    return made_once("prepared", run) / "data"


@pytest.fixture(scope="session")
def flags(tiny, prepared) -> list[str]:
    """A job of 100 steps of 16 texts, seconds of training; model_dir is missing."""
    keys = (
        *("training.steps=100", "training.log_every=20", "training.save_every=40", "training.eval_every=50"),
        *("data.batch_size=16", "data.seq_length=24", "data.truncation=head_tail", "optimizer.learning_rate=1e-3"),
    )
    return [f"--encoder={tiny}", f"--data_dir={prepared}", *(f"--set={key}" for key in keys)]


@pytest.fixture(scope="session")
def finished_run(flags, made_once) -> Path:
    """The model_dir of that job, finished. Copy it to change it."""

    def run(folder: Path) -> None:
        python("-m", "trainer.task", *flags, f"--model_dir={folder / 'run'}", check=True)

    return made_once("finished", run) / "run"


def start(code: str, *arguments: object, **options) -> subprocess.Popen:
    """Python code in a process of its own, its output in pipes."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def outcome(code: str, *arguments: object, **options) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of Python code run in a process of its own."""
    process = start(code, *arguments, **options)
    out, error = process.communicate(timeout=120)
    return process.returncode, out, error


@pytest.fixture(scope="session")
def job(finished_run):
    """The parts of that job on one CPU, with the encoder's own weights. What changes the model, restores it."""
    import tensorflow as tf

    from trainer import build, config

    loaded = config.load(str(finished_run / "config.yaml"), ["logging.progress=off", "logging.tensorboard=off"])
    return build.job(loaded, tf.distribute.OneDeviceStrategy("/cpu:0"))


@pytest.fixture(scope="session")
def evaluated(finished_run, made_once) -> tuple[str, list[dict]]:
    """What --mode=evaluate prints of that run's test split, with the baseline, and the predictions that it writes."""

    def run(folder: Path) -> None:
        arguments = [f"--model_dir={finished_run}", "--baseline", f"--predictions={folder / 'predictions.jsonl'}"]
        done = python("-m", "trainer.task", "--mode=evaluate", *arguments, check=True)
        (folder / "printed").write_text(done.stdout, encoding="utf-8")

    folder = made_once("evaluated", run)
    lines = (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return (folder / "printed").read_text(encoding="utf-8"), [json.loads(line) for line in lines]


def traced(code: str) -> str:
    """What Python code prints in the environment that traces for TPUs, which TensorFlow here cannot."""
    done = subprocess.run(
        [ROOT / ".venv-tpu-trace/bin/python", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
