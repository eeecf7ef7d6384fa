"""Evaluation and export on data other than the run's, and a run on rare classes, as a user sees them."""

import csv
import json
import random
import re

import pytest
from helpers import python, review, write_reviews
from interruptions import read_metrics

SHORT = ("data.batch_size=16", "data.seq_length=24", "logging.report=off")


def prepare(source, encoder, output, *arguments):
    where = ["--task=csv", f"--source={source}", f"--encoder={encoder}", f"--output={output}"]
    python("scripts/prepare_data.py", *where, *arguments, check=True)
    return output


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def test_data_with_other_class_names_are_refused_and_nothing_is_written(tiny, finished_run, tmp_path):
    source = write_reviews(tmp_path / "reviews.csv", 300)
    text = source.read_text().replace(",positive", ",good").replace(",negative", ",poor")
    source.write_text(text)
    data = prepare(source, tiny, tmp_path / "data")
    before = files_of(finished_run)
    predictions = tmp_path / "predictions.jsonl"
    for mode in (["--mode=evaluate", f"--predictions={predictions}"], ["--mode=export"]):
        done = python("-m", "trainer.task", *mode, f"--model_dir={finished_run}", f"--data_dir={data}")
        assert done.returncode == 1
        assert "negative, positive" in done.stderr
        assert "good, poor" in done.stderr
        assert "Traceback" not in done.stderr
    assert files_of(finished_run) == before
    assert not predictions.exists()


def test_texts_of_train_in_data_split_anew_are_counted(tiny, finished_run, prepared, tmp_path):
    data = prepare(prepared.parent / "reviews.csv", tiny, tmp_path / "data", "--seed=7")
    done = python("-m", "trainer.task", "--mode=evaluate", f"--model_dir={finished_run}", f"--data_dir={data}")
    assert done.returncode == 0, done.stderr
    assert f"--data_dir {data} (fingerprint " in done.stderr
    (count,) = re.findall(r"(\d+) of the 30 examples of test have a text that the run was trained on", done.stderr)
    texts = {}
    for split, folder in (("train", prepared), ("test", data)):
        texts[split] = set(re.findall(rb"\d+: [a-z ]+\.", b"".join(p.read_bytes() for p in folder.glob(f"{split}-*"))))
    assert int(count) == len(texts["train"] & texts["test"]) > 10


@pytest.fixture(scope="module")
def tickets(tiny, tmp_path_factory):
    """A data set of 400 texts of which 20 are fraud."""
    folder = tmp_path_factory.mktemp("tickets")
    rng = random.Random(4)
    with (folder / "tickets.csv").open("w", newline="") as file:
        rows = [(f"{n}: {review(rng, n % 20 == 0)}", "fraud" if n % 20 == 0 else "ok") for n in range(400)]
        csv.writer(file).writerows([("text", "label"), *rows])
    return prepare(folder / "tickets.csv", tiny, folder / "data")


def test_a_rare_class_is_named_and_lower_loss_breaks_ties(tiny, tickets, tmp_path):
    keys = ("training.steps=20", "training.eval_every=5", *SHORT)
    where = [f"--encoder={tiny}", f"--data_dir={tickets}", f"--model_dir={tmp_path / 'run'}"]
    done = python("-m", "trainer.task", *where, *(f"--set={key}" for key in keys))
    assert done.returncode == 0, done.stderr
    evaluations = read_metrics(tmp_path / "run", "validation")
    result = json.loads((tmp_path / "run/result.json").read_text())
    best = max(evaluations, key=lambda line: (line["accuracy"], -line["loss"]))
    assert result["best_step"] == best["step"]
    assert len([line for line in evaluations if line["accuracy"] == best["accuracy"]]) > 1
    assert result["test_classes"]["positive_class"] == "fraud"
    assert "are those of the class 'fraud'" in done.stdout
    assert re.search(r"^fraud +\d\.\d{4}", done.stdout, re.MULTILINE)
    assert result["test"]["f1"] == result["test_classes"]["by_class"]["fraud"]["f1"] == 0
    assert "no better than that of always saying 'ok'" in done.stderr
    assert all(f"note: {note}" in done.stdout for note in result["notes"])


@pytest.mark.long
def test_the_best_step_is_chosen_by_another_metric(tiny, tickets, tmp_path):
    keys = ("training.steps=8", "training.eval_every=2", *SHORT)
    more = ("training.best_metric=loss", "optimizer.learning_rate=3e-2", "data.positive_class=ok")
    where = [f"--encoder={tiny}", f"--data_dir={tickets}", f"--model_dir={tmp_path / 'run'}"]
    done = python("-m", "trainer.task", *where, *(f"--set={key}" for key in (*keys, *more)))
    assert done.returncode == 0, done.stderr
    best = min(read_metrics(tmp_path / "run", "validation"), key=lambda line: line["loss"])
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert (result["best_step"], result["best_metric"]) == (best["step"], "loss")
    assert "are those of the class 'ok'" in done.stdout


def test_settings_that_do_not_suit_the_labels_are_all_refused(tiny, tickets, tmp_path):
    where = [f"--encoder={tiny}", f"--data_dir={tickets}", f"--model_dir={tmp_path / 'run'}"]
    done = python("-m", "trainer.task", *where, "--data.positive_class=Fraud", "--training.best_metric=pearson")
    assert done.returncode == 2
    assert "data.positive_class must be a class of the data set: fraud, ok. Received: Fraud." in done.stderr
    assert "training.best_metric must be one of accuracy, " in done.stderr
    assert not (tmp_path / "run").exists()
