"""Ratings of 1 to 5 as numbers: prepared, trained, killed, resumed, evaluated, exported and predicted."""

import csv
import json
import random

import numpy as np
import pytest
import sklearn.metrics
from helpers import PLAIN, python
from interruptions import JobCommand, assert_equal_runs

from trainer.export import predict

pytestmark = pytest.mark.long

RATINGS = {"awful": 1, "dull": 2, "decent": 3, "brilliant": 4, "superb": 5}
KEYS = (
    *("training.steps=150", "training.log_every=10", "training.save_every=20", "training.eval_every=50"),
    *("training.best_metric=quadratic_kappa", "data.batch_size=16", "data.seq_length=24"),
    *("optimizer.learning_rate=1e-3", "logging.progress=off", "logging.report=off"),
)


@pytest.fixture(scope="module")
def flags(tiny, tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("ratings"), random.Random(0)
    with (folder / "ratings.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "stars"])
        for number in range(400):
            word = rng.choice(list(RATINGS))
            words = [*rng.choices(PLAIN, k=rng.randint(3, 12)), word]
            rng.shuffle(words)
            writer.writerow([f"{number}: {' '.join(words)}.", RATINGS[word]])
    where = ["--task=csv", f"--source={folder / 'ratings.csv'}", f"--encoder={tiny}", f"--output={folder / 'data'}"]
    python("scripts/prepare_data.py", *where, "--label_column=stars", "--label_type=number", check=True)
    return [f"--encoder={tiny}", f"--data_dir={folder / 'data'}", "--strategy=cpu", *(f"--set={key}" for key in KEYS)]


@pytest.fixture(scope="module")
def finished(flags, tmp_path_factory):
    """The model_dir of the finished run."""
    model_dir = tmp_path_factory.mktemp("runs") / "run"
    python("-m", "trainer.task", *flags, f"--model_dir={model_dir}", check=True)
    return model_dir


def test_the_kappa_is_of_rounded_scores_and_selects_the_best(finished, tmp_path):
    predictions = tmp_path / "predictions.jsonl"
    arguments = [f"--model_dir={finished}", f"--predictions={predictions}"]
    done = python("-m", "trainer.task", "--mode=evaluate", *arguments, check=True)
    rows = [json.loads(line) for line in predictions.read_text().splitlines()]
    labels = [int(row["label"]) for row in rows]
    rounded = np.clip(np.round([row["scores"][0] for row in rows]), 1, 5).astype(int)
    kappa = sklearn.metrics.cohen_kappa_score(labels, rounded, weights="quadratic")
    result = json.loads((finished / "result.json").read_text())
    assert result["best_metric"] == "quadratic_kappa"
    assert result["test"]["quadratic_kappa"] == pytest.approx(kappa, abs=1e-6)
    assert result["test"]["quadratic_kappa"] > 0.8
    assert result["test"]["accuracy"] == pytest.approx(np.mean(rounded == labels))
    assert f"{kappa:.4f}" in done.stdout


def test_a_killed_run_on_ratings_ends_the_same(flags, finished, tmp_path):
    model_dir = JobCommand(flags, 1).run_interrupted(tmp_path / "run", "training", "evaluation")
    assert_equal_runs(model_dir, finished)


def test_the_export_scores_in_stars(finished):
    _, signature = predict.load_export(str(finished / "export"))
    texts = [[f"the {word} film"] for word in RATINGS]
    scores = [float(scores[0]) for scores, _, _ in predict.predict_texts(signature, texts)]
    assert scores == sorted(scores)
    assert scores == pytest.approx(list(RATINGS.values()), abs=1)
