"""Fixtures that cost seconds: tiny encoders, made once a session in processes of their own."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import gcs
from filelock import FileLock
from helpers import load_quietly, python, write_points, write_reviews

os.environ.setdefault("PYTHONFAULTHANDLER", "1")  # A process that crashes says so in its first lines.
if "PYTEST_XDIST_WORKER" not in os.environ:  # The workers inherit it.
    CACHE = tempfile.TemporaryDirectory()
    os.environ["HUBTUNE_CACHE_DIR"] = CACHE.name

# The package sets TF_USE_LEGACY_KERAS before anything imports TensorFlow.
from trainer.runtime import garbage

garbage.collect_rarely()


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
                shutil.rmtree(folder, ignore_errors=True)  # What a call that failed has left.
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
    simulator_process.control("wipe", {})
    simulator_process.bucket("bucket")
    return simulator_process


@pytest.fixture(scope="session")
def prepared(tiny, made_once) -> Path:
    """A data set of 300 reviews: 240 to train on, in 4 shards, 30 to validate, 30 to test."""

    def run(folder: Path) -> None:
        prepare(write_reviews(folder / "reviews.csv", 300), tiny, folder / "data")

    return made_once("prepared", run) / "data"


def prepare(source: Path, encoder: Path, output: Path) -> None:
    arguments = ["--task=csv", f"--source={source}", f"--encoder={encoder}", f"--output={output}"]
    python("scripts/prepare_data.py", *arguments, check=True)


@pytest.fixture(scope="session")
def flags(tiny, prepared) -> list[str]:
    """A job of 100 steps of 16 texts, seconds of training; model_dir is missing."""
    keys = (
        *("training.steps=100", "training.log_every=20", "training.save_every=40", "training.eval_every=50"),
        *("data.batch_size=16", "data.seq_length=24", "data.truncation=head_tail", "optimizer.learning_rate=1e-3"),
        "logging.report=off",
    )
    return [f"--encoder={tiny}", f"--data_dir={prepared}", *(f"--set={key}" for key in keys)]


@pytest.fixture(scope="session")
def finished_run(flags, made_once) -> Path:
    """The model_dir of that job, finished. Copy it to change it."""

    def run(folder: Path) -> None:
        python("-m", "trainer.task", *flags, "--logging.report=on", f"--model_dir={folder / 'run'}", check=True)

    return made_once("finished", run) / "run"


@pytest.fixture(scope="session")
def job(finished_run):
    """The parts of that job on one CPU, with the encoder's own weights. What changes the model, restores it."""
    import tensorflow as tf

    from trainer.train import builder

    return builder.build_job(load_quietly(finished_run), tf.distribute.OneDeviceStrategy("/cpu:0"))


@pytest.fixture(scope="session")
def points_run(tiny, made_once) -> Path:
    """The model_dir of a finished job on numbers of 79 to 101; its data set is in the folder beside it, "data"."""

    def run(folder: Path) -> None:
        prepare(write_points(folder / "points.csv", 300), tiny, folder / "data")
        keys = ("training.steps=120", "training.save_every=40", "training.eval_every=40", "data.batch_size=16")
        settings = [f"--set={key}" for key in (*keys, "data.seq_length=24", "optimizer.learning_rate=1e-3")]
        where = [f"--encoder={tiny}", f"--data_dir={folder / 'data'}", f"--model_dir={folder / 'run'}"]
        python("-m", "trainer.task", *where, *settings, check=True)

    return made_once("points", run) / "run"


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
