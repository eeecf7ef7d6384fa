"""A data set with weights and kept columns, from its table to predictions, with a kill in between."""

import csv
import json
import random

import numpy as np
import pytest
from helpers import python, review
from interruptions import JobCommand, assert_equal_runs, read_metrics

from trainer.data import manifests, records

pytestmark = pytest.mark.long

KEYS = (
    *("training.steps=120", "training.save_every=20", "training.eval_every=60", "training.log_every=7"),
    *("data.batch_size=16", "data.seq_length=24", "optimizer.learning_rate=1e-3", "training.class_weights=balanced"),
    *("training.label_smoothing=0.1", "model.dropout=0.2", "logging.tensorboard=false"),
)


@pytest.fixture(scope="module")
def tickets(tiny, tmp_path_factory):
    """A data set of 300 texts, one in ten fraud, with weights of 0 to 2.5 and their source."""
    folder = tmp_path_factory.mktemp("tickets")
    rng = random.Random(4)
    rows = [
        (f"{n}: {review(rng, n % 10 == 0)}", "fraud" if n % 10 == 0 else "ok", n % 6 / 2, ("web", "mail, old")[n % 2])
        for n in range(300)
    ]
    with (folder / "tickets.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label", "trust", "source"), *rows])
    where = ["--task=csv", f"--source={folder / 'tickets.csv'}", f"--encoder={tiny}", f"--output={folder / 'data'}"]
    python("scripts/prepare_data.py", *where, "--weight_column=trust", "--keep_columns=source,text", check=True)
    return folder / "data"


def test_each_example_has_its_weight_and_kept_columns(tickets):
    manifest = manifests.read_manifest(str(tickets))
    columns = records.read_split(str(tickets), manifest, "test", with_text=True)
    assert columns.weights.tolist() == [number % 6 / 2 for number in columns.ids]
    assert columns.kept["source"] == [("web", "mail, old")[number % 2] for number in columns.ids]
    assert columns.kept["text"] == columns.texts


def test_a_weighted_run_that_is_killed_equals_an_uninterrupted_one(tiny, tickets, tmp_path):
    flags = [f"--encoder={tiny}", f"--data_dir={tickets}", "--strategy=mirrored", "--virtual_devices=3"]
    job = JobCommand([*flags, *(f"--set={key}" for key in KEYS)], 1)
    expected = job.run_to_end(tmp_path / "whole")
    assert_equal_runs(job.run_interrupted(tmp_path / "killed", "during a save"), expected)
    assert [line["examples"] for line in read_metrics(expected, "train")] == [112] * 17 + [16]
    assert [line["examples"] for line in read_metrics(expected, "test")] == [30]
    done = python("-m", "trainer.task", "--mode=evaluate", f"--model_dir={expected}", "--baseline", check=True)
    assert "fraud" in done.stdout
    command = ["scripts/predict.py", f"--model={expected / 'export'}", "--format=jsonl"]
    (prediction,) = map(json.loads, python(*command, "an awful, dreadful film", check=True).stdout.splitlines())
    assert np.isclose(sum(prediction["scores"].values()), 1)


def test_settings_of_the_loss_that_do_not_suit_are_all_refused(tiny, tickets, tmp_path):
    where = [f"--encoder={tiny}", f"--data_dir={tickets}", f"--model_dir={tmp_path / 'run'}"]
    keys = ["--training.class_weights={Fraud: 3}", "--training.loss=focal", "--training.label_smoothing=0.1"]
    done = python("-m", "trainer.task", *where, *keys)
    assert done.returncode == 2
    assert "training.class_weights must name classes of the data set: fraud, ok. Received: 'Fraud'." in done.stderr
    assert "training.label_smoothing must be 0 with training.loss=focal. Received: 0.1." in done.stderr
    assert not (tmp_path / "run").exists()
