import json
import shutil

import pytest

from trainer.evals import prediction_files
from trainer.runtime.signals import StopRequest
from trainer.storage import fs
from trainer.train import checkpoints, finish, runs
from trainer.train.run_files import resolve_run_files


@pytest.fixture
def complete_dir(finished_run, tmp_path):
    """A copy of the finished run's model_dir without what its end has written."""
    written = ("result.json", "history.png", "report.html", "*.parquet")
    ignored = shutil.ignore_patterns("export", "tensorboard", *written)
    return shutil.copytree(finished_run, tmp_path / "run", ignore=ignored)


def test_an_interrupted_end_is_repeated_without_a_second_test(restored_job, complete_dir, finished_run):
    run = runs.open_run(restored_job, resolve_run_files(str(complete_dir)), 0.0)
    lines = len(run.history.lines)
    result = finish.finish_run(run, StopRequest())
    assert len(run.history.lines) == lines
    expected = json.loads((finished_run / "result.json").read_text())
    same = expected.keys() - {"seconds", "export_difference", "machine"}
    assert {key: result[key] for key in same} == {key: expected[key] for key in same}
    assert result["export_difference"] <= 1e-4
    assert json.loads(fs.read_text(run.files.result)) == result
    assert fs.exists(fs.join(run.files.export, "saved_model.pb"))
    assert fs.exists(run.files.picture)
    kept = prediction_files.read_predictions(run.files.test_predictions)
    assert kept.right.mean() == pytest.approx(result["test"]["accuracy"])
    assert kept.source.data_fingerprint == result["data_fingerprint"]


def test_the_test_split_has_one_line(restored_job, complete_dir):
    path = complete_dir / "metrics.jsonl"
    lines = [line for line in path.read_text().splitlines() if json.loads(line)["split"] != "test"]
    path.write_text("".join(f"{line}\n" for line in lines))
    run = runs.open_run(restored_job, resolve_run_files(str(complete_dir)), 0.0)
    predictions = runs.predict_split(run, runs.read_split(run, "test"), "test", None, StopRequest())
    first = finish.test_line(run, predictions)
    assert (first["split"], first["examples"]) == ("test", 30)
    assert finish.test_line(run, predictions) == first
    assert len(path.read_text().splitlines()) == len(lines) + 1


def test_the_result_describes_each_class_of_test(finished_run):
    result = json.loads((finished_run / "result.json").read_text())
    classes, test = result["test_classes"], result["test"]
    assert result["best_metric"] == "accuracy"
    assert list(classes["by_class"]) == ["negative", "positive"]
    assert sum(scores["support"] for scores in classes["by_class"].values()) == test["examples"]
    positive = classes["by_class"][classes["positive_class"]]
    assert {name: test[name] for name in ("precision", "recall", "f1")} == {
        k: positive[k] for k in ("precision", "recall", "f1")
    }
    right = sum(classes["confusion"][name].get(name, 0) for name in classes["confusion"])
    assert right / test["examples"] == pytest.approx(test["accuracy"])


def test_numbers_have_metrics_in_their_own_units_and_a_loss_that_has_none(points_run):
    result = json.loads((points_run / "result.json").read_text())
    scale = json.loads((points_run / "identity.json").read_text())["label_scale"]
    assert result["label_scale"] == scale
    assert 85 < scale["mean"] < 95
    assert 5 < scale["deviation"] < 9
    for split in ("validation", "test"):
        error = result[split]["mean_squared_error"]
        assert error == pytest.approx(result[split]["loss"] * scale["deviation"] ** 2, rel=1e-4)
        assert error < scale["deviation"] ** 2 / 2
        assert result[split]["pearson"] > 0.7
    assert result["test_classes"] == {}


def test_a_run_of_equal_steps_reports_the_weights_that_it_kept(restored_job, complete_dir):
    """A run from before ties were broken by the loss kept the earliest of equal steps."""
    path = complete_dir / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    (kept,) = checkpoints.list_steps(str(complete_dir / "best"))
    other = next(line for line in lines if line["split"] == "validation" and line["step"] != kept)
    best = next(line for line in lines if line["split"] == "validation" and line["step"] == kept)
    other |= {"accuracy": best["accuracy"], "loss": best["loss"] / 2}
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    run = runs.open_run(restored_job, resolve_run_files(str(complete_dir)), 0.0)
    assert run.history.best("accuracy")["step"] == other["step"]
    assert runs.best_line(run)["step"] == kept
    assert finish.finish_run(run, StopRequest())["best_step"] == kept
