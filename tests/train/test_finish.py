import json
import shutil

import pytest

from trainer.runtime.signals import StopRequest
from trainer.storage import fs
from trainer.train import finish, runs
from trainer.train.run_files import resolve_run_files


@pytest.fixture
def complete_dir(finished_run, tmp_path):
    """A copy of the finished run's model_dir without what its end has written."""
    ignored = shutil.ignore_patterns("export", "tensorboard", "result.json", "history.png")
    return shutil.copytree(finished_run, tmp_path / "run", ignore=ignored)


def test_an_interrupted_end_is_repeated_without_a_second_test(restored_job, complete_dir, finished_run):
    run = runs.open_run(restored_job, resolve_run_files(str(complete_dir)), 0.0)
    lines = len(run.history.lines)
    result = finish.finish_run(run, StopRequest())
    assert len(run.history.lines) == lines
    expected = json.loads((finished_run / "result.json").read_text())
    same = ("task", "steps", "best_step", "validation", "test", "precision", "encoder", "data_fingerprint", "versions")
    assert {key: result[key] for key in same} == {key: expected[key] for key in same}
    assert result["export_difference"] <= 1e-4
    assert json.loads(fs.read_text(run.files.result)) == result
    assert fs.exists(fs.join(run.files.export, "saved_model.pb"))
    assert fs.exists(run.files.picture)


def test_the_test_split_is_evaluated_once(restored_job, complete_dir):
    path = complete_dir / "metrics.jsonl"
    lines = [line for line in path.read_text().splitlines() if json.loads(line)["split"] != "test"]
    path.write_text("".join(f"{line}\n" for line in lines))
    run = runs.open_run(restored_job, resolve_run_files(str(complete_dir)), 0.0)
    first = finish.test_once(run, StopRequest())
    assert (first["split"], first["examples"]) == ("test", 30)
    assert finish.test_once(run, StopRequest()) == first
    assert len(path.read_text().splitlines()) == len(lines) + 1
