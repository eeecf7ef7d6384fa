"""A run's encoder and its classifier for other programs, and the commands that write them."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from helpers import load_quietly, python, score_texts
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2

from trainer.data import manifests, records, tokenization
from trainer.encoders import native, saved_models
from trainer.errors import UserError
from trainer.evals import metrics
from trainer.export import predict, token_classifier
from trainer.runtime import signals
from trainer.train import decisions, modes, run_exports, runs, sessions

ENCODER, CLASSIFIER = "scripts/export_encoder.py", "scripts/export_classifier.py"


def restore_best(model_dir, **changes):
    config = dataclasses.replace(load_quietly(model_dir), **changes)
    return modes.restore_best(sessions.open_on_cpu(config, str(model_dir), 0.0))


def export_encoder(model_dir, output, **changes):
    return run_exports.export_encoder(restore_best(model_dir, **changes).run, str(output), "hub")


def export_classifier(model_dir, output, **changes):
    request, restored = signals.StopRequest(), restore_best(model_dir, **changes)
    decision = modes.find_decision(restored, request)
    return run_exports.export_classifier(restored.run, decision, str(output), "litert", request)


def test_another_worker_than_the_chief_exports_nothing(model_dir):
    worker = dataclasses.replace(restore_best(model_dir).run, chief=False)
    assert run_exports.export_run(worker, None, signals.StopRequest()) == 0
    assert not (model_dir / "export").exists()


@pytest.mark.parametrize("evaluated_before", [False, True])
def test_a_run_that_evaluates_in_bfloat16_exports_what_it_evaluates(model_dir, evaluated_before):
    run, request = restore_best(model_dir, eval_precision="bfloat16").run, signals.StopRequest()
    test = runs.read_split(run, "test", with_text=True)
    predictions = runs.predict_split(run, test, "test", None, request)
    difference = run_exports.export_run(run, None, request, predictions if evaluated_before else None)
    _, signature = predict.load_export(str(model_dir / "export"))
    found = score_texts(signature, test.texts)
    assert np.abs(found - predictions.scores).max() <= max(2 * difference, 1e-6) <= 0.05
    exact = runs.predict_split(restore_best(model_dir).run, test, "test", None, request)
    assert np.abs(predictions.logits - exact.logits).max() > 1e-4  # float32's are others.
    functions = saved_model_pb2.SavedModel.FromString((model_dir / "export/saved_model.pb").read_bytes())
    (graph,) = [meta.graph_def for meta in functions.meta_graphs]
    nodes = [node for function in graph.library.function for node in function.node_def]
    products = [node.attr["T"].type for node in nodes if node.op in ("Einsum", "MatMul", "BatchMatMulV2")]
    assert products.count(types_pb2.DT_BFLOAT16) > products.count(types_pb2.DT_FLOAT) > 0  # The head is in float32.
    outputs = signature(text=tf.constant(test.texts[:2]))
    assert {outputs[name].dtype for name in ("scores", "logits")} == {tf.float32}


def test_an_export_with_the_scores_of_other_texts_is_refused(model_dir):
    run, request = restore_best(model_dir).run, signals.StopRequest()
    predictions = runs.predict_split(run, runs.read_split(run, "test"), "test", None, request)
    moved = dataclasses.replace(predictions, logits=np.roll(predictions.logits, 1, axis=0))
    with pytest.raises(UserError, match="Nothing was exported"):
        run_exports.export_run(run, None, request, moved)
    assert not (model_dir / "export").exists()


def test_only_the_shards_of_the_first_rows_are_read(model_dir):
    run = restore_best(model_dir).run
    shards = run.job.manifest.splits["train"].shards
    first, second = (shard.examples for shard in shards[:2])
    every = runs.read_split(run, "train", with_text=True)
    for count, expected in ((1, first), (first, first), (first + 1, first + second), (10_000, len(every))):
        read = run_exports._read_first(run, "train", count)
        assert (read.ids, read.texts) == (every.ids[:expected], every.texts[:expected])


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
    test = records.read_split(str(prepared), manifest, "test", with_text=True)
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


def test_a_classifier_of_a_bfloat16_run_computes_in_float32(exported, model_dir, tmp_path):
    described = export_classifier(model_dir, tmp_path / "out", eval_precision="bfloat16")
    assert described["check"]["largest_difference"] <= 1e-4
    inputs = {name: np.full([2, 9], value, np.int32) for name, value in zip(native.INPUT_NAMES, (7, 1, 0), strict=True)}
    folders = (str(tmp_path / "out"), str(exported[0]))
    of_bfloat16, of_float32 = (token_classifier.load_classifier(folder)(inputs) for folder in folders)
    assert of_bfloat16 == pytest.approx(of_float32, abs=1e-6)


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


@pytest.mark.parametrize(
    ("script", "formats"), [(ENCODER, "hub, hugging_face"), (CLASSIFIER, "litert, litert_int8, onnx")]
)
def test_help_answers_without_tensorflow(script, formats):
    done = python("-X", "importtime", script, "--help")
    assert done.returncode == 0
    assert f"Allowed values: {formats}." in done.stdout
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
    assert "--format must be one of " in done.stderr


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
