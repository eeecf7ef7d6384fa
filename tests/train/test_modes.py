import dataclasses
import json
import re
import shutil

import pytest
from helpers import load_quietly

from trainer.config import loading
from trainer.data import manifests
from trainer.distributed import strategies
from trainer.train import modes, runs
from trainer.train.run_files import resolve_run_files
from trainer.train.sessions import Session


@pytest.fixture
def config(finished_run):
    return load_quietly(finished_run)


@pytest.fixture
def session(config):
    """A function model_dir -> a session on the CPU."""
    devices = strategies.DeviceRequest()
    return lambda model_dir: Session(config, resolve_run_files(str(model_dir)), "cpu", devices, 0.0)


def test_batches_are_inspected_from_the_newest_checkpoint_on(config, finished_run):
    lines = list(modes.inspect_batches(config, None, 3))
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert all(len(line["ids"]) == 16 for line in lines)
    assert list(modes.inspect_batches(config, str(finished_run / "checkpoints"), 3)) == []  # It has trained to its end.


def test_a_run_without_a_best_checkpoint_cannot_be_evaluated(session, tmp_path):
    with pytest.raises(ValueError, match="--model_dir must hold a run that has evaluated"):
        modes.evaluate(session(tmp_path), "test")


def test_an_evaluation_gives_the_run_s_and_the_baseline_s_metrics(session, finished_run, model_dir, evaluated):
    evaluation = modes.evaluate(session(model_dir), "test", with_baseline=True)
    (name, metrics), (baseline, _) = evaluation.rows
    printed, predictions = evaluated
    assert name in printed
    assert baseline in printed
    right = sum(row["label"] == row["scores"].index(max(row["scores"])) for row in predictions)
    assert metrics["accuracy"] == pytest.approx(right / len(predictions))
    assert [row["predicted"] == row["label_name"] for row in predictions].count(True) == right
    supports = {name: scores["support"] for name, scores in evaluation.classes["by_class"].items()}
    names = [row["label_name"] for row in predictions]
    assert supports == {name: names.count(name) for name in ("negative", "positive")}


def test_the_baseline_on_other_data_learns_from_the_run_s_own_train(session, model_dir, prepared, tmp_path):
    own = session(model_dir)
    folder = str(shutil.copytree(prepared, tmp_path / "other"))
    manifest = manifests.read_manifest(folder)
    few = manifest.splits | {"train": manifest.splits["test"]}
    manifests.write_manifest(folder, dataclasses.replace(manifest, splits=few))
    other = dataclasses.replace(own, config=dataclasses.replace(own.config, data_dir=folder))
    (_, expected), (_, baseline) = (modes.evaluate(s, "validation", with_baseline=True).rows[1] for s in (own, other))
    assert baseline == expected
    (model_dir / "config.yaml").write_text(loading.dump_config(other.config))
    with pytest.raises(ValueError, match="--baseline must be left out"):
        modes.evaluate(other, "validation", with_baseline=True)


def test_an_evaluation_names_another_encoder_than_the_run_s(session, model_dir, caplog):
    modes.evaluate(session(model_dir), "test")
    assert "--encoder" not in caplog.text
    identity = json.loads((model_dir / "identity.json").read_text())
    (model_dir / "identity.json").write_text(json.dumps(identity | {"encoder_sha256": "0"}))
    modes.evaluate(session(model_dir), "test")
    assert "is another one than that of the run in --model_dir" in caplog.text


def test_an_evaluation_needs_no_space_for_saves(session, model_dir, monkeypatch):
    checked = []
    monkeypatch.setattr(runs, "check_scratch_space", checked.append)
    modes.evaluate(session(model_dir), "test")
    assert checked == []
    monkeypatch.setattr(modes.loop, "train_and_evaluate", lambda *arguments: {})
    modes.train(session(model_dir.with_name("new")), 1.0)
    assert len(checked) == 1


def test_an_unfinished_run_has_no_report(session, model_dir):
    (model_dir / "result.json").unlink()
    with pytest.raises(ValueError, match="--model_dir must hold a run that is finished"):
        modes.report(session(model_dir))


def test_a_report_of_other_data_is_refused(session, model_dir, prepared, tmp_path):
    own = session(model_dir)
    folder = str(shutil.copytree(prepared, tmp_path / "other"))
    manifest = manifests.read_manifest(folder)
    manifests.write_manifest(folder, dataclasses.replace(manifest, seed=7))
    with pytest.raises(ValueError, match="--data_dir must be the run's own data"):
        modes.report(dataclasses.replace(own, config=dataclasses.replace(own.config, data_dir=folder)))


def test_the_report_of_a_finished_run_is_written_again(session, model_dir):
    expected = (model_dir / "report.html").read_text(encoding="utf-8")
    for name in ("report.html", "model_card.md", "label_errors.jsonl"):
        (model_dir / name).unlink()
    paths = modes.report(session(model_dir), cross_check=True)
    assert sorted(paths) == sorted(str(model_dir / n) for n in ("report.html", "model_card.md", "label_errors.jsonl"))
    figures = [
        set(re.findall(r'data-value="(test[^"]*)"><bdi>([^<]*)', page))
        for page in (expected, (model_dir / "report.html").read_text(encoding="utf-8"))
    ]
    assert len(figures[0]) > 5
    assert figures[0] == figures[1]
    assert "Cross-checked" in (model_dir / "report.html").read_text(encoding="utf-8")
