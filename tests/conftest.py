"""Fixtures that cost seconds: tiny encoders, made once a session in processes of their own."""

import csv
import random
import subprocess
import sys
from pathlib import Path

import pytest

import trainer  # noqa: F401  sets TF_USE_LEGACY_KERAS before anything imports TensorFlow

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def make_encoder(tmp_path_factory):
    """A function preset -> the folder of a random encoder in the Hub's format, made at most once."""
    made = {}

    def make(preset: str) -> Path:
        if preset not in made:
            folder = tmp_path_factory.mktemp("encoders") / preset
            command = [sys.executable, "scripts/import_encoder.py", f"--source=random:{preset}", f"--output={folder}"]
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
            made[preset] = folder
        return made[preset]

    return make


@pytest.fixture(scope="session")
def tiny(make_encoder) -> Path:
    """The folder of a 2-layer BERT with random weights: encoder/ and preprocess/."""
    return make_encoder("tiny")


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
def prepared(tiny, tmp_path_factory) -> Path:
    """A data set of 300 reviews: 240 to train on, in 4 shards, 30 to validate, 30 to test."""
    folder = tmp_path_factory.mktemp("prepared")
    source = write_reviews(folder / "reviews.csv", 300)
    arguments = ["--task=csv", f"--source={source}", f"--encoder={tiny}", f"--output={folder / 'data'}"]
    python("scripts/prepare_data.py", *arguments, check=True)
    return folder / "data"


@pytest.fixture(scope="session")
def flags(tiny, prepared) -> list[str]:
    """A job of 60 steps of 16 texts, seconds of training; model_dir is missing."""
    keys = (
        *("training.steps=60", "training.log_every=20", "training.save_every=30", "training.eval_every=30"),
        *("data.batch_size=16", "data.seq_length=24", "data.truncation=head_tail", "optimizer.learning_rate=2e-3"),
    )
    return [f"--encoder={tiny}", f"--data_dir={prepared}", *(f"--set={key}" for key in keys)]


@pytest.fixture(scope="session")
def finished_run(flags, tmp_path_factory) -> Path:
    """The model_dir of that job, finished. Copy it to change it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    python("-m", "trainer.task", *flags, f"--model_dir={folder}", check=True)
    return folder
