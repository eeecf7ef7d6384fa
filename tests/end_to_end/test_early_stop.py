"""A job that stops early, chooses a threshold and calibrates its scores, killed where it decides."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers import python
from interruptions import (
    INSTANTS,
    Instant,
    assert_equal_runs,
    count_log_lines,
    read_metrics,
)

from trainer.data import manifests, records
from trainer.export import predict
from trainer.report import error_analysis

pytestmark = pytest.mark.long

PATIENCE, STEPS = 2, 150
SETTINGS = (
    *("training.eval_every=10", f"training.patience={PATIENCE}", "training.best_metric=loss"),
    *("training.calibrate=on", "training.threshold_metric=f1", "optimizer.learning_rate=3e-3"),
)


@pytest.fixture(scope="module")
def make_command(make_job_command):
    """A function (name of STRATEGIES) -> the command of the job."""
    return lambda strategy: make_job_command(strategy, STEPS).with_settings(*SETTINGS)


@pytest.fixture(scope="module")
def stopped(make_command, tmp_path_factory) -> Path:
    """The model_dir of the job, not interrupted."""
    return make_command("cpu").run_to_end(tmp_path_factory.mktemp("stopped") / "run")


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def test_a_run_stops_after_its_patience(stopped):
    result = read_json(stopped / "result.json")
    evaluations = read_metrics(stopped, "validation")
    losses = [line["loss"] for line in evaluations]
    assert (result["stopped_early"], result["planned_steps"]) == (True, STEPS)
    assert result["steps"] == evaluations[-1]["step"] < STEPS
    assert result["best_step"] == evaluations[losses.index(min(losses))]["step"]
    assert len(losses) - 1 - losses.index(min(losses)) == PATIENCE
    # It did not stop later than it might have: no earlier evaluations were as many without a better one.
    waited = [n - losses.index(min(losses[: n + 1])) for n in range(len(losses))]
    assert max(waited[:-1]) < PATIENCE
    assert "Training stopped at step" in result["notes"][-1]
    last = [(line["step"], line["split"]) for line in read_metrics(stopped)][-3:]
    assert last == [(result["steps"], split) for split in ("train", "validation", "test")]
    assert sum(line["examples"] for line in read_metrics(stopped, "train")) == result["steps"] * 16
    rates = {line["step"]: line["learning_rate"] for line in read_metrics(stopped, "train")}
    assert rates[result["steps"]] > 3e-3 * (STEPS - result["steps"]) / STEPS  # The schedule is that of all steps.
    assert f"ckpt-{result['steps']}" in tf.train.latest_checkpoint(str(stopped / "checkpoints"))


def instants_of_the_end(evaluations: int) -> dict[str, Instant]:
    """Kills after the last evaluation, in the test, and in the export."""

    def last_evaluation(model_dir: Path) -> bool:
        return count_log_lines(model_dir, "validation") >= evaluations

    return {"last evaluation": Instant(last_evaluation, 0.0), "test": Instant(INSTANTS["test"].observe, 0.0)} | {
        "export": INSTANTS["export"]
    }


@pytest.mark.parametrize(
    ("strategy", "names"), [("cpu", ["last evaluation", "test", "export"]), ("multi_worker", ["last evaluation"])]
)
def test_a_run_killed_where_it_stops_ends_the_same(make_command, stopped, tmp_path, strategy, names):
    job = make_command(strategy)
    expected = stopped if strategy == "cpu" else job.run_to_end(tmp_path / "uninterrupted")
    steps = read_json(expected / "result.json")["steps"]
    assert steps < STEPS
    instants = instants_of_the_end(len(read_metrics(expected, "validation")))
    model_dir = job.run_interrupted(tmp_path / "killed", *names, instants=instants)
    assert_equal_runs(model_dir, expected)
    assert read_json(model_dir / "decision.json") == read_json(expected / "decision.json")


def test_the_export_decides_as_the_test_did(stopped, prepared):
    result, decision = (read_json(stopped / name) for name in ("result.json", "decision.json"))
    assert decision["step"] == result["best_step"]
    loaded, signature = predict.load_export(str(stopped / "export"))
    assert loaded.temperature.numpy() == np.float32(result["calibration"]["temperature"]) != 1
    assert loaded.threshold.numpy() == np.float32(result["decision"]["threshold"])
    manifest = manifests.read_manifest(str(prepared))
    test = records.read_split(str(prepared), manifest, "test", with_text=True)
    outputs = signature(text=tf.constant(test.texts))
    names = np.array([name.decode() for name in outputs["labels"].numpy()])
    right = names == np.array(manifest.labels)[test.labels]
    assert right.mean() == pytest.approx(result["test"]["accuracy"])
    assert result["decision"]["test"]["with"]["accuracy"] == result["test"]["accuracy"]
    likelihood = np.log(outputs["scores"].numpy()[np.arange(len(names)), test.labels])
    after = result["calibration"]["test"]["after"]["negative_log_likelihood"]
    assert -likelihood.mean() == pytest.approx(after, abs=1e-4)
    assert result["test"]["loss"] == pytest.approx(
        result["calibration"]["test"]["before"]["negative_log_likelihood"], abs=1e-5
    )


def test_a_later_evaluation_and_export_decide_alike(stopped, tmp_path):
    result = read_json(stopped / "result.json")
    predictions = tmp_path / "predictions.jsonl"
    where = f"--model_dir={stopped}"
    done = python("-m", "trainer.task", "--mode=evaluate", where, f"--predictions={predictions}", check=True)
    rows = [json.loads(line) for line in predictions.read_text().splitlines()]
    assert np.mean([row["label_name"] == row["predicted"] for row in rows]) == result["test"]["accuracy"]
    assert f"{result['test']['accuracy']:.4f}" in done.stdout
    loaded, signature = predict.load_export(str(stopped / "export"))
    before = (loaded.temperature.numpy(), loaded.threshold.numpy(), signature(text=tf.constant(["a superb film"])))
    python("-m", "trainer.task", "--mode=export", where, check=True)
    loaded, signature = predict.load_export(str(stopped / "export"))
    after = (loaded.temperature.numpy(), loaded.threshold.numpy(), signature(text=tf.constant(["a superb film"])))
    assert before[:2] == after[:2]
    for name in ("scores", "labels"):
        assert (before[2][name].numpy() == after[2][name].numpy()).all()


def test_the_report_decides_alike_at_the_end_and_later(stopped):
    result, page = read_json(stopped / "result.json"), (stopped / "report.html").read_text(encoding="utf-8")
    wrong = round((1 - result["test"]["accuracy"]) * result["test"]["examples"])
    assert wrong
    assert f"The {min(wrong, error_analysis.MAX_ERRORS)} examples of test in which" in page
    python("-m", "trainer.task", "--mode=report", f"--model_dir={stopped}", check=True)
    assert (stopped / "report.html").read_text(encoding="utf-8") == page


def test_a_stopped_run_is_finished(make_command, stopped):
    done = python("-m", "trainer.task", *make_command("cpu").flags, f"--model_dir={stopped}", check=True)
    assert "nothing to do" in done.stderr
    assert f"finished: {read_json(stopped / 'result.json')['steps']} steps of {STEPS} planned" in done.stdout
