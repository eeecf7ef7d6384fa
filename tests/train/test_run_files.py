import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from trainer.config import loading
from trainer.data.label_scale import LabelScale, RatingRange
from trainer.train import checkpoints, run_files
from trainer.train.label_use import LabelUse
from trainer.train.run_files import resolve_run_files


@pytest.fixture
def configured(finished_run):
    """A function "key=value"... -> the finished run's configuration with these values."""
    return lambda *overrides: loading.load_config(str(finished_run / "config.yaml"), overrides)


def test_a_model_dir_holds_the_documented_files(finished_run):
    folders = {"checkpoints", "best", "export", "tensorboard"}
    files = {"config.yaml", "identity.json", "decision.json", "history.png", "metrics.jsonl", "result.json"}
    files |= {"test_predictions.parquet", "report.html", "model_card.md", "label_errors.jsonl"}
    assert {path.name for path in finished_run.iterdir() if not path.name.startswith(".")} == folders | files
    assert checkpoints.list_steps(str(finished_run / "checkpoints")) == [40, 80, 100]
    result = json.loads((finished_run / "result.json").read_text())
    assert checkpoints.list_steps(str(finished_run / "best")) == [result["best_step"]]


def test_the_resolved_configuration_is_written_and_read_back(finished_run, flags):
    written = loading.load_config(str(finished_run / "config.yaml"))
    settings = [flag.removeprefix("--set=") for flag in flags if flag.startswith("--set=")]
    folders = [flag.removeprefix("--") for flag in flags if not flag.startswith("--set=")]
    assert loading.find_differences(written, loading.load_config(None, [*settings, *folders])) == []


def test_a_finished_run_is_recognized(model_dir, configured):
    expected = json.loads((model_dir / "result.json").read_text())
    automatic = ("precision=auto", "eval_precision=auto", "model.compile=auto", "model.fused=auto")
    for same in ((), ("logging.progress=off",), ("data_dir=moved", "encoder=moved"), automatic):
        assert run_files.read_finished_result(configured(*same), resolve_run_files(str(model_dir))) == expected


def test_a_run_resumes_with_what_it_made_of_auto(model_dir, configured, tmp_path):
    files, asked = resolve_run_files(str(model_dir)), configured("precision=auto", "eval_precision=auto")
    (model_dir / "result.json").unlink()
    written = (model_dir / "config.yaml").read_text()
    for started in ("bfloat16", "float32"):
        text = written.replace("precision: float32", f"precision: {started}")  # Of eval_precision too.
        (model_dir / "config.yaml").write_text(text)
        kept = run_files.keep_resolved(asked, files)
        assert (kept.precision, kept.eval_precision) == (started, started)
    (model_dir / "config.yaml").write_text(written.replace("eval_precision: float32\n", ""))  # From before it existed.
    assert run_files.keep_resolved(asked, files).eval_precision == "float32"
    shutil.rmtree(model_dir / "checkpoints")
    assert run_files.keep_resolved(asked, files) == asked


def test_a_new_or_unfinished_run_has_no_result(model_dir, configured, tmp_path):
    assert run_files.read_finished_result(configured(), resolve_run_files(str(tmp_path / "new"))) is None
    (model_dir / "result.json").unlink()
    assert run_files.read_finished_result(configured(), resolve_run_files(str(model_dir))) is None


@pytest.mark.parametrize("has_finished", [True, False])
def test_another_configuration_is_rejected_with_its_keys(model_dir, configured, has_finished):
    if not has_finished:
        (model_dir / "result.json").unlink()
    with pytest.raises(ValueError, match="--model_dir must be new") as raised:
        run_files.read_finished_result(
            configured("optimizer.learning_rate=0.5", "seed=7", "logging.progress=off"),
            resolve_run_files(str(model_dir)),
        )
    for words in (
        "optimizer.learning_rate: 0.001 in the run, 0.5 here",
        "seed: 0 in the run, 7 here",
        str(model_dir),
        f"--init_from={model_dir} and another --model_dir",
    ):
        assert words in str(raised.value)
    assert "logging" not in str(raised.value)


def test_without_a_checkpoint_the_configuration_may_change(model_dir, configured):
    (model_dir / "result.json").unlink()
    shutil.rmtree(model_dir / "checkpoints")
    assert run_files.read_finished_result(configured("seed=7"), resolve_run_files(str(model_dir))) is None


def with_other(job, what):
    if what == "--data_dir":
        return dataclasses.replace(job, manifest=dataclasses.replace(job.manifest, seed=job.manifest.seed + 1))
    return dataclasses.replace(job, encoder=dataclasses.replace(job.encoder, sha256="0" * 64))


@pytest.mark.parametrize(("flag", "key"), [("--data_dir", "data_fingerprint"), ("--encoder", "encoder_sha256")])
def test_a_model_dir_of_other_data_or_weights_is_rejected(job, model_dir, flag, key):
    before = {path: path.read_bytes() for path in model_dir.iterdir() if path.is_file()}
    run_files.write_run_identity(job, resolve_run_files(str(model_dir)))
    with pytest.raises(ValueError, match=rf"^{flag} must .*{model_dir} \({key} [0-9a-f]{{12}}\)\. Received: another"):
        run_files.write_run_identity(with_other(job, flag), resolve_run_files(str(model_dir)))
    assert (model_dir / "identity.json").read_bytes() == before[model_dir / "identity.json"]


def test_a_new_model_dir_gets_the_runs_identity(job, tmp_path):
    (tmp_path / "new").mkdir()
    run_files.write_run_identity(job, resolve_run_files(str(tmp_path / "new")))
    assert loading.load_config(str(tmp_path / "new/config.yaml")) == job.config
    identity = json.loads((tmp_path / "new/identity.json").read_text())
    assert identity == {
        "data_fingerprint": job.manifest.fingerprint,
        "encoder_sha256": job.encoder.sha256,
        "kind": "classification",
        "labels": ["negative", "positive"],
        "texts": 1,
        "label_scale": None,
        "rating_range": None,
        "positive_class": job.label_use.positive_class,
    }


def edit_identity(model_dir, remove=(), **changes):
    path = model_dir / "identity.json"
    identity = {key: value for key, value in json.loads(path.read_text()).items() if key not in remove}
    path.write_text(json.dumps(identity | changes))


def test_a_started_run_keeps_what_it_made_of_its_labels(job, model_dir, tmp_path):
    files = resolve_run_files(str(model_dir))
    assert run_files.read_label_use(files, job.manifest) == job.label_use
    scale, rating_range = {"mean": 90.5, "deviation": 5.25}, {"lowest": 80, "highest": 99}
    edit_identity(model_dir, positive_class="negative", label_scale=scale, rating_range=rating_range)
    kept = run_files.read_label_use(files, job.manifest)
    assert kept == LabelUse(LabelScale(90.5, 5.25), "negative", RatingRange(80, 99))
    run_files.write_run_identity(dataclasses.replace(job, label_use=kept), files)
    assert run_files.read_label_use(files, job.manifest) == kept
    assert run_files.read_label_use(resolve_run_files(str(tmp_path / "new")), job.manifest) is None


def test_a_run_without_a_checkpoint_decides_on_its_labels_again(job, model_dir):
    """It was killed before its first checkpoint, and starts again: with other data, or another positive class."""
    edit_identity(model_dir, positive_class="negative")
    shutil.rmtree(model_dir / "checkpoints")
    files = resolve_run_files(str(model_dir))
    assert run_files.read_label_use(files, job.manifest) is None
    assert run_files.read_label_use(files, job.manifest, of_best=True) == LabelUse(None, "negative")
    shutil.rmtree(model_dir / "best")
    assert run_files.read_label_use(files, job.manifest, of_best=True) is None


def test_a_run_from_before_labels_were_kept_goes_on_as_it_began(job, model_dir):
    """It learned numbers as they are, and its F1 was of the second of two classes."""
    edit_identity(model_dir, remove=("labels", "texts", "label_scale", "rating_range", "positive_class"))
    files = resolve_run_files(str(model_dir))
    assert run_files.read_label_use(files, job.manifest) == LabelUse(None, "positive")
    numbers = dataclasses.replace(job.manifest, kind="regression", labels=())
    assert run_files.read_label_use(files, numbers) == LabelUse(None, None)


def test_the_scale_of_numbers_is_not_guessed(job, model_dir):
    (model_dir / "identity.json").unlink()
    files = resolve_run_files(str(model_dir))
    assert run_files.read_label_use(files, job.manifest) == LabelUse(None, "positive")
    numbers = dataclasses.replace(job.manifest, kind="regression", labels=())
    with pytest.raises(ValueError, match=rf"--model_dir must hold the run's identity\.json.*{model_dir}, without it"):
        run_files.read_label_use(files, numbers)


@pytest.fixture
def moved_checkpoints(model_dir, tmp_path):
    """(the run's files with the default folder of checkpoints, and with the folder that holds its checkpoints)."""
    folder = str(tmp_path / "elsewhere")
    shutil.move(model_dir / "checkpoints", folder)
    identity = json.loads((model_dir / "identity.json").read_text())
    (model_dir / "identity.json").write_text(json.dumps({**identity, "checkpoints": folder}))
    return resolve_run_files(str(model_dir)), resolve_run_files(str(model_dir), {"checkpoints": folder})


@pytest.mark.parametrize("has_finished", [True, False])
def test_a_run_with_checkpoints_elsewhere_resumes_only_with_them(moved_checkpoints, configured, has_finished):
    alone, files = moved_checkpoints
    if not has_finished:
        Path(alone.result).unlink()
    assert (run_files.read_finished_result(configured(), files) is not None) == has_finished
    for others in (alone, resolve_run_files(alone.root, {"checkpoints": "/new"})):
        with pytest.raises(ValueError, match=r"^AIP_CHECKPOINT_DIR must") as raised:
            run_files.read_finished_result(configured(), others)
        for words in (alone.root, f"Received: {others.checkpoints}", f"AIP_CHECKPOINT_DIR={files.checkpoints}"):
            assert words in str(raised.value)


def test_a_run_in_its_model_dir_does_not_restart_elsewhere(model_dir, configured, tmp_path):
    words = rf"Received: {tmp_path}/new, but they are in {model_dir}/checkpoints\. "
    with pytest.raises(ValueError, match=words):
        run_files.read_finished_result(
            configured(), resolve_run_files(str(model_dir), {"checkpoints": str(tmp_path / "new")})
        )


def test_a_new_run_does_not_use_the_checkpoints_of_another(moved_checkpoints, configured, tmp_path):
    _, files = moved_checkpoints
    with pytest.raises(ValueError, match="which has those of another run"):
        run_files.read_finished_result(
            configured(), resolve_run_files(str(tmp_path / "new"), {"checkpoints": files.checkpoints})
        )


def test_the_identity_names_checkpoints_that_are_elsewhere(job, tmp_path):
    (tmp_path / "new").mkdir()
    run_files.write_run_identity(
        job, resolve_run_files(str(tmp_path / "new"), {"checkpoints": "/there", "export": "/model"})
    )
    assert json.loads((tmp_path / "new/identity.json").read_text())["checkpoints"] == "/there"
