"""A run's report, at its end: what it is made from, and what may not cost the run."""

import dataclasses
import json
import re
import shutil

import pytest

from trainer.config import loading
from trainer.runtime.signals import StopRequest
from trainer.storage import fs
from trainer.train import finish, run_files, run_report, runs
from trainer.train.run_files import resolve_run_files


@pytest.fixture
def run(restored_job, model_dir):
    """The finished run, with its best weights."""
    opened = runs.open_run(restored_job, resolve_run_files(str(model_dir)), 0.0)
    runs.restore(opened, opened.best)
    return opened


@pytest.fixture
def parts(run):
    """(result, the predictions of test) of that run."""
    result = json.loads(fs.read_text(run.files.result))
    return result, runs.predict_split(run, runs.read_split(run, "test"), "test", None, StopRequest())


def test_a_finished_run_has_a_report_with_marked_words(finished_run):
    page = (finished_run / "report.html").read_text(encoding="utf-8")
    for key in ("result", "classes", "calibration", "slices", "errors", "labels", "data", "training", "cost", "use"):
        assert f'<section id="{key}">' in page
    wrong = json.loads((finished_run / "result.json").read_text())["test"]["accuracy"] < 1
    assert ("<mark" in page) == wrong
    assert "bag of words" in page
    assert (finished_run / "model_card.md").read_text(encoding="utf-8").startswith("# csv: ")


def test_a_run_on_numbers_has_a_report(points_run):
    page = (points_run / "report.html").read_text(encoding="utf-8")
    assert '<section id="numbers">' in page
    assert "<mark" in page


def test_the_command_repeats_the_run(finished_run):
    config = loading.load_config(str(finished_run / "config.yaml"))
    command = run_files.repeat_command(config, resolve_run_files(str(finished_run)))
    settings = dict(re.findall(r"--([\w.]+)=(\S+)", command))
    assert settings.pop("model_dir") == f"{finished_run}_again"
    assert loading.load_config(None, (), settings) == config


def test_a_report_that_cannot_be_written_costs_no_run(restored_job, finished_run, tmp_path, caplog):
    ignored = shutil.ignore_patterns("export", "tensorboard", "result.json", "report.html")
    folder = shutil.copytree(finished_run, tmp_path / "run", ignore=ignored)
    (folder / "report.html").mkdir()
    run = runs.open_run(restored_job, resolve_run_files(str(folder)), 0.0)
    assert finish.finish_run(run, StopRequest())["steps"] == 100
    assert (folder / "result.json").exists()
    assert "--mode=report" in caplog.text


def test_data_that_one_worker_cannot_read_is_told_to_all(run, parts, model_dir, monkeypatch, caplog):
    def fail(run):
        raise OSError("the disk is gone")

    told = []
    monkeypatch.setattr(run_report, "read_columns", fail)
    (model_dir / "report.html").unlink()
    reduced = dataclasses.replace(run, all_reduce_max=lambda values: told.append(values) or values)
    run_report.write_at_end(reduced, *parts, None, StopRequest())
    assert told == [{"missing": True}, {"failed": True}]
    assert "the disk is gone" in caplog.text
    assert not (model_dir / "report.html").exists()


def test_a_worker_reads_validation_only_to_predict_it(run, parts, monkeypatch):
    read = []
    monkeypatch.setattr(run_report, "read_columns", lambda run: pytest.fail("this is the chief's"))
    monkeypatch.setattr(run_report.runs, "read_split", lambda run, split: read.append(split))
    monkeypatch.setattr(run_report.runs, "predict_split", lambda *_: parts[1])
    worker = dataclasses.replace(run, chief=False)
    for known, expected in ((parts[1], []), (None, ["validation"])):
        run_report.write_at_end(worker, *parts, None, StopRequest(), known)
        assert read == expected


def test_a_process_that_is_asked_to_stop_leaves_the_report_out(run, parts, model_dir, caplog):
    (model_dir / "report.html").unlink()
    run_report.write_at_end(run, *parts, None, StopRequest("SIGTERM"))
    assert not (model_dir / "report.html").exists()
    assert "--mode=report" in caplog.text


def test_what_is_known_of_validation_is_not_predicted_again(run, parts, model_dir):
    validation = runs.predict_split(run, runs.read_split(run, "validation"), "validation", None, StopRequest())
    calls, pages = [], []

    def counted(batches):
        calls[-1] += 1
        return run.eval_step(batches)

    for known in (None, validation):
        calls.append(0)
        run_report.write_at_end(dataclasses.replace(run, eval_step=counted), *parts, None, StopRequest(), known)
        pages.append((model_dir / "report.html").read_text())
    assert calls[0] > calls[1]
    assert pages[0] == pages[1]


def test_the_report_can_be_switched_off(run, parts, model_dir):
    (model_dir / "report.html").unlink()
    config = run.job.config
    off = dataclasses.replace(config, logging=dataclasses.replace(config.logging, report=False))
    run_report.write_at_end(
        dataclasses.replace(run, job=dataclasses.replace(run.job, config=off)), *parts, None, StopRequest()
    )
    assert not (model_dir / "report.html").exists()


def test_of_a_large_train_the_first_shards_are_looked_at(run, parts, monkeypatch):
    result, test = parts
    monkeypatch.setattr(run_report, "MAX_TRAIN_EXAMPLES", 130)
    columns = run_report.read_columns(run)
    facts = run_report.gather_facts(run, result, columns, {"validation": test, "test": test})
    assert len(facts.columns["train"]) == 120
