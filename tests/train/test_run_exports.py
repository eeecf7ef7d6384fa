"""A run's encoder and its classifier for other programs, and the commands that write them."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from helpers import python

from trainer.config import loading
from trainer.data import manifests, records, tokenization
from trainer.encoders import native, saved_models
from trainer.errors import UserError
from trainer.evals import metrics
from trainer.export import token_classifier
from trainer.runtime import signals
from trainer.train import decisions, modes, run_exports

ENCODER, CLASSIFIER = "scripts/export_encoder.py", "scripts/export_classifier.py"


def restore_best(model_dir, **changes):
    config = loading.load_config(str(model_dir / "config.yaml"), ["logging.progress=off", "logging.tensorboard=off"])
    return modes.restore_best(modes.open_session(dataclasses.replace(config, **changes), str(model_dir), 0.0))


def export_encoder(model_dir, output, **changes):
    return run_exports.export_encoder(restore_best(model_dir, **changes).run, str(output), "hub")


def export_classifier(model_dir, output):
    request, restored = signals.StopRequest(), restore_best(model_dir)
    decision = modes.find_decision(restored, request)
    return run_exports.export_classifier(restored.run, decision, str(output), "litert", request)


def test_another_worker_than_the_chief_exports_nothing(model_dir):
    worker = dataclasses.replace(restore_best(model_dir).run, chief=False)
    assert run_exports.export_run(worker, None, signals.StopRequest()) == 0
    assert not (model_dir / "export").exists()


# --- The encoder ----------------------------------------------------------------------------------


def test_an_encoder_is_exported_with_the_best_weights(model_dir, tmp_path, tiny):
    assert export_encoder(model_dir, tmp_path / "mine") <= 1e-5
    architecture, values = native.rebuild_encoder(saved_models.load_saved_model(str(tmp_path / "mine/encoder")))
    reader = tf.train.load_checkpoint(str(model_dir / "best"))
    trained = [reader.get_tensor(key) for key in reader.get_variable_to_shape_map()]
    assert all(any(np.array_equal(value, other) for other in trained) for value in values)
    started, before = native.rebuild_encoder(saved_models.load_saved_model(str(tiny / "encoder")))
    assert architecture == started
    assert not any(np.array_equal(value, other) for value, other in zip(values, before, strict=True))
    card = (tmp_path / "mine/README.md").read_text(encoding="utf-8")
    assert "fine-tuned on csv" in card
    assert "- train: 240 examples" in card


def test_an_unfinished_run_has_no_encoder_to_export(model_dir, tmp_path):
    (model_dir / "result.json").unlink()
    with pytest.raises(UserError, match="--model_dir must hold a run that is finished"):
        export_encoder(model_dir, tmp_path / "mine")


def test_an_encoder_s_card_needs_the_run_s_own_data(model_dir, tmp_path, prepared):
    folder = str(shutil.copytree(prepared, tmp_path / "other"))
    manifests.write_manifest(folder, dataclasses.replace(manifests.read_manifest(folder), seed=7))
    with pytest.raises(UserError, match="--data_dir must be the run's own data"):
        export_encoder(model_dir, tmp_path / "mine", data_dir=folder)


# --- The classifier -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(finished_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "classifier"
    described = export_classifier(finished_run, folder)
    return folder, described


def test_a_classifier_is_described_for_other_programs(exported, prepared):
    folder, described = exported
    assert json.loads((folder / "classifier.json").read_text()) == described
    assert described["labels"] == ["negative", "positive"]
    assert (described["kind"], described["scores"], described["temperature"]) == ("classification", "softmax", 1.0)
    assert (described["seq_length"], described["truncation"], described["windows"]) == (24, "head_tail", None)
    assert described["inputs"]["input_word_ids"] == {"dtype": "int32", "shape": ["batch", "tokens"]}
    assert (folder / "vocab.txt").read_bytes() == tokenization.read_vocabulary(str(prepared / "preprocess"))


def test_the_exported_classifier_gives_the_run_s_labels(exported, prepared, evaluated):
    folder, described = exported
    manifest = manifests.read_manifest(str(prepared))
    test = records.read_shards(str(prepared), manifest.splits["test"].shards, manifest, with_text=True)
    tokenizer = tokenization.load_tokenizer(str(prepared / "preprocess"))
    inputs = tokenization.pack_inputs(
        tokenizer.tokenize(tf.constant(test.texts)), None, tokenizer.special, described["seq_length"], "head_tail"
    )
    classify = token_classifier.load_classifier(str(folder))
    logits = token_classifier.classify_rows(classify, {name: value.numpy() for name, value in inputs.items()})
    _, predictions = evaluated
    scores = metrics.Predictions(test.ids, test.labels, logits, logits).scores
    assert scores == pytest.approx(np.array([row["scores"] for row in predictions]), abs=1e-4)


def test_the_metrics_of_an_export_are_of_its_own_logits(exported, finished_run):
    _, described = exported
    result = json.loads((finished_run / "result.json").read_text())
    for split in ("validation", "test"):
        measured = described["metrics"][split]
        assert measured["metric"] == "accuracy"
        assert measured["run"] == measured["export"] == pytest.approx(result[split]["accuracy"])
    assert described["metrics"]["test"]["examples"] == 30


def test_an_export_has_the_decision_of_the_run(model_dir, tmp_path):
    kept = json.loads((model_dir / "decision.json").read_text())
    changed = {**kept, "temperature": 2.5, "calibrate": True, "positive": 1, "threshold": 0.25}
    decisions.write_decision(str(model_dir / "decision.json"), decisions.Decision(**changed))
    described = export_classifier(model_dir, tmp_path / "out")
    assert described["temperature"] == 2.5
    assert described["threshold"] == {"label": "positive", "score": 0.25}


def test_an_export_of_numbers_has_their_units(points_run, tmp_path):
    described = export_classifier(points_run, tmp_path / "out")
    assert (described["kind"], described["labels"], described["scores"]) == ("regression", [], "identity")
    assert described["metrics"]["test"]["metric"] == "pearson"
    assert described["metrics"]["test"]["export"] == pytest.approx(described["metrics"]["test"]["run"], abs=1e-4)


# --- The commands ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("script", "flag"), [(ENCODER, "hub|hugging_face"), (CLASSIFIER, "litert|litert_int8|onnx")])
def test_help_answers_without_tensorflow(script, flag):
    done = python("-X", "importtime", script, "--help")
    assert done.returncode == 0
    assert f"<{flag}>" in done.stdout
    assert "--data_dir" in done.stdout
    assert not [line for line in done.stderr.splitlines() if line.endswith(("tensorflow", "numpy"))]


@pytest.mark.parametrize("script", [ENCODER, CLASSIFIER])
def test_wrong_flags_are_refused_at_once(script, tmp_path):
    done = python("-X", "importtime", script, f"--model_dir={tmp_path}/none", f"--output={tmp_path}", "--seed=1")
    assert done.returncode == 2
    errors = "\n".join(line for line in done.stderr.splitlines() if "import time:" not in line)
    assert "--output must name a new folder" in errors
    assert "--seed must be left out" in errors
    assert not [line for line in done.stderr.splitlines() if line.endswith("tensorflow")]


@pytest.mark.parametrize("script", [ENCODER, CLASSIFIER])
def test_a_folder_without_a_run_is_refused(script, tmp_path):
    done = python(script, f"--model_dir={tmp_path}", f"--output={tmp_path}/out")
    assert done.returncode == 2
    assert "--model_dir must hold a run" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("script", [ENCODER, CLASSIFIER])
def test_an_unknown_format_is_refused(script, tmp_path):
    done = python(script, f"--model_dir={tmp_path}", f"--output={tmp_path}/out", "--format=paper")
    assert done.returncode == 2
    assert "--format=paper: value should be one of" in done.stderr


def test_the_commands_write_to_a_new_folder(finished_run, tmp_path):
    arguments = [f"--model_dir={finished_run}", f"--output={tmp_path}/classifier", "--format=litert_int8"]
    done = python(CLASSIFIER, *arguments, check=True)
    assert "accuracy on 30 texts of test" in done.stdout
    assert sorted(path.name for path in (tmp_path / "classifier").iterdir()) == [
        *("classifier.json", "model.tflite", "vocab.txt"),
    ]
    arguments = [f"--model_dir={finished_run}", f"--output={tmp_path}/encoder", "--format=hugging_face"]
    assert "of the run's" in python(ENCODER, *arguments, check=True).stdout
    assert (tmp_path / "encoder/tokenizer.json").exists()
