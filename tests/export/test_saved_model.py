"""The exported SavedModel, and the parity check that it passes before it replaces an older one."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers import score_texts
from tensorflow.core.protobuf import saved_model_pb2

from trainer.data import manifests, records
from trainer.errors import UserError
from trainer.export import predict, saved_model


@pytest.fixture(scope="module")
def moved(finished_run, tmp_path_factory):
    """A copy of the finished run's export in another folder."""
    return shutil.copytree(finished_run / "export", tmp_path_factory.mktemp("moved") / "export")


@pytest.fixture(scope="module")
def loaded(moved):
    return predict.load_export(str(moved))


@pytest.fixture(scope="module")
def test_split(job):
    return records.read_split(job.config.data_dir, job.manifest, "test", with_text=True)


def test_a_moved_export_computes_the_scores_of_the_evaluation(loaded, test_split, evaluated):
    _, predictions = evaluated
    scores = score_texts(loaded[1], test_split.texts)
    assert [row["id"] for row in predictions] == test_split.ids
    assert max(test_split.lengths()) > 22 > min(test_split.lengths())  # Some texts are truncated.
    assert scores == pytest.approx(np.array([row["scores"] for row in predictions]), abs=1e-4)
    assert scores.std(axis=0).min() > 1e-3  # The texts differ.


def test_the_signature_has_the_documented_outputs(loaded, test_split):
    outputs = loaded[1](text=tf.constant(test_split.texts[:3]))
    assert {name: (value.dtype, tuple(value.shape)) for name, value in outputs.items()} == {
        "scores": (tf.float32, (3, 2)),
        "logits": (tf.float32, (3, 2)),
        "labels": (tf.string, (3,)),
    }
    scores, logits = outputs["scores"].numpy(), outputs["logits"].numpy().astype(np.float64)
    assert scores == pytest.approx(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), abs=1e-6)
    names = [b"negative", b"positive"]
    assert outputs["labels"].numpy().tolist() == [names[best] for best in logits.argmax(axis=1)]


def test_a_text_has_the_same_scores_in_any_batch(loaded, test_split):
    long, short = (test_split.texts[select(test_split.lengths())] for select in (np.argmax, np.argmin))
    alone, together = (score_texts(loaded[1], texts) for texts in ([short], [long, short, ""]))
    assert together[1] == pytest.approx(alone[0], abs=1e-6)


@pytest.mark.parametrize("names", [["text"], ["text", "text_pair"]])
def test_no_text_has_no_scores(job, names):
    _, signature = saved_model.build_serving_module(
        job.eval_model,
        job.tokenizer,
        texts=len(names),
        labels=("negative", "positive"),
        seq_length=24,
        truncation="head",
    )
    for rows in (0, 1, 3):
        outputs = signature(**{name: tf.constant(["a"] * rows, tf.string) for name in names})
        shapes = {name: tuple(value.shape) for name, value in outputs.items()}
        assert shapes == {"scores": (rows, 2), "logits": (rows, 2), "labels": (rows,)}


def test_the_vocabulary_is_an_asset(moved, tiny):
    assert (moved / "assets/vocab.txt").read_bytes() == (tiny / "preprocess/assets/vocab.txt").read_bytes()


def operators(folder: Path) -> set[str]:
    """The names of all operators in a SavedModel's graphs and functions."""
    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    graphs = [meta.graph_def for meta in saved.meta_graphs]
    bodies = [body for graph in graphs for body in (graph.node, *(f.node_def for f in graph.library.function))]
    return {node.op for body in bodies for node in body}


def test_the_export_has_only_operators_of_tensorflow_serving(moved, tiny):
    # TensorFlow Text 2.20 has these, 2.12.1 does not, which TensorFlow Serving's images had for years:
    # https://github.com/tensorflow/serving/pull/4057
    missing = {"TFText>RoundRobinTrim", "TFText>RoundRobinGenerateMasks", "TFText>Utf8Binarize"}
    assert not operators(moved) & missing
    assert operators(tiny / "preprocess") & missing  # The packing that the export leaves out.


def test_the_result_has_the_largest_difference_of_a_score(finished_run):
    result = json.loads((finished_run / "result.json").read_text())
    assert 0 <= result["export_difference"] <= 1e-4


def build_module(job, **decision):
    return saved_model.build_serving_module(
        job.eval_model,
        job.tokenizer,
        texts=1,
        labels=("no", "yes"),
        seq_length=24,
        truncation="head",
        **decision,
    )


@pytest.fixture(scope="module")
def serving_module(job):
    return build_module(job)


@pytest.mark.parametrize("positive", [0, 1])
def test_an_export_has_a_temperature_and_a_threshold(job, test_split, tmp_path, positive):
    module, signature = build_module(job, temperature=2.5, threshold=(positive, 0.5))
    texts = tf.constant(test_split.texts)
    outputs = {name: value.numpy() for name, value in signature(texts).items()}
    halves = outputs["logits"].astype(np.float64) / 2.5
    assert outputs["scores"] == pytest.approx(np.exp(halves) / np.exp(halves).sum(axis=1, keepdims=True), abs=1e-6)
    limit = float(np.median(outputs["scores"][:, positive]))
    module.threshold.assign(limit)
    above = outputs["scores"][:, positive] > np.float32(limit)
    assert 0 < above.sum() < len(above)
    names = [b"no", b"yes"]
    expected = [names[positive if high else 1 - positive] for high in above]
    assert signature(texts)["labels"].numpy().tolist() == expected
    tf.saved_model.save(module, str(tmp_path / "export"), signatures={"serving_default": signature})
    loaded, again = predict.load_export(str(tmp_path / "export"))
    values = [(value.dtype, value.shape.rank, value.numpy()) for value in (loaded.temperature, loaded.threshold)]
    assert values == [(tf.float32, 0, 2.5), (tf.float32, 0, np.float32(limit))]
    predicted = list(predict.predict_texts(again, [[text] for text in test_split.texts]))
    assert [label.encode() for _, label, _ in predicted] == expected
    assert np.array([scores for scores, _, _ in predicted]) == pytest.approx(outputs["scores"], abs=1e-6)
    loaded.threshold.assign(1.0)
    assert {label for _, label, _ in predict.predict_texts(again, [["a text"]])} == {names[1 - positive].decode()}


def test_an_export_without_a_decision_has_the_likeliest_class(moved):
    loaded, _ = predict.load_export(str(moved))
    assert loaded.temperature.numpy() == 1
    assert getattr(loaded, "threshold", None) is None


def test_the_export_of_numbers_scores_in_their_own_units(points_run, tiny):
    result = json.loads((points_run / "result.json").read_text())
    manifest = manifests.read_manifest(str(points_run.parent / "data"))
    test = records.read_split(str(points_run.parent / "data"), manifest, "test", with_text=True)
    _, signature = loaded = predict.load_export(str(points_run / "export"))
    scores = score_texts(signature, test.texts)
    error = np.mean((scores[:, 0].astype(np.float64) - test.labels) ** 2)
    assert error == pytest.approx(result["test"]["mean_squared_error"], rel=1e-3)
    assert 75 < scores.min() < scores.max() < 105
    outputs = signature(text=tf.constant(test.texts[:3]))
    assert (outputs["logits"].numpy() == outputs["scores"].numpy()).all()
    assert predict.class_names(loaded[0]) == []


def score(signature, texts, **changes) -> saved_model.ScoredTexts:
    """What a job expects of an export that computes what `signature` does."""
    outputs = signature(tf.constant(texts))
    labels = np.array([label.decode() for label in outputs["labels"].numpy()])
    margins = np.abs(outputs["scores"].numpy()[:, 0] - 0.5)
    expected = saved_model.ScoredTexts(
        [(text,) for text in texts], outputs["scores"].numpy(), labels, margins, saved_model.TOLERANCES["float32"]
    )
    return dataclasses.replace(expected, **changes)


@pytest.mark.parametrize(("unit", "accepted"), [(1.0, False), (10.0, True)])
def test_scores_of_numbers_are_compared_in_units_of_their_deviation(
    serving_module, test_split, tmp_path, unit, accepted
):
    module, signature = serving_module
    expected = score(signature, test_split.texts[:4], unit=unit)
    expected = dataclasses.replace(expected, scores=expected.scores + np.float32(5e-4))
    with saved_model.parity_process() as fresh:
        arguments = (module, signature, str(tmp_path / "export"), expected, fresh)
        if accepted:
            assert saved_model.write_saved_model(*arguments) == pytest.approx(5e-4, abs=1e-5)
        else:
            with pytest.raises(UserError, match="The export's scores must be within"):
                saved_model.write_saved_model(*arguments)
    assert (tmp_path / "export/saved_model.pb").exists() == accepted
    assert fresh.process.returncode == 0


@pytest.mark.parametrize(
    ("error", "precision", "accepted"),
    [
        *[([0.04, 0], "bfloat16", True), ([0.06, 0], "bfloat16", False), ([np.nan, 0], "bfloat16", False)],
        # What is off by a little for every text is not rounding.
        *[([0.009, -0.009], "bfloat16", True), ([0.011, -0.011], "bfloat16", False)],
        *[([9e-5, -9e-5], "float32", True), ([2e-4, 0], "float32", False)],
    ],
)
def test_each_precision_has_its_own_tolerance(error, precision, accepted):
    scores = np.linspace(0.1, 0.9, 60, dtype=np.float32).reshape(30, 2)
    expected = saved_model.ScoredTexts([("a",)] * 30, scores, None, None, saved_model.TOLERANCES[precision])
    found = scores.copy()
    if error[1]:
        found += np.tile(np.float32(error), (30, 1))
    else:
        found[7, 1] += error[0]
    if accepted:
        assert saved_model.check_parity(found, np.zeros(30), expected) == pytest.approx(max(error), abs=1e-6)
    else:
        with pytest.raises(UserError, match="The export's scores"):
            saved_model.check_parity(found, np.zeros(30), expected)


@pytest.mark.parametrize("several", [False, True])
def test_a_label_may_differ_only_where_the_tolerance_leaves_it_open(several):
    labels, margins = np.array(["no", "yes", "yes"]), np.array([0.3, 0.04, 0.2], np.float32)
    changed = np.array(["no", "no", "yes"]), np.array(["no", "no", "no"])
    if several:
        labels = np.array([[True, False], [True, True], [False, False]])
        margins = np.array([[0.3, 0.4], [0.04, 0.4], [0.2, 0.4]], np.float32)
        changed = tuple(labels ^ (margins < most) for most in (0.1, 0.25))
    scores = np.full([3, 2], 0.5, np.float32)
    tolerance = saved_model.TOLERANCES["bfloat16"]
    expected = saved_model.ScoredTexts([("a",)] * 3, scores, labels, margins, tolerance)
    for accepted in (labels, changed[0]):
        assert saved_model.check_parity(scores, accepted, expected) == 0
    with pytest.raises(UserError, match=r"The export's labels .*Received: 1 others on 3 texts"):
        saved_model.check_parity(scores, changed[1], expected)


@pytest.mark.parametrize("error", [2e-4, np.nan])
def test_an_export_with_other_scores_leaves_the_old_one(serving_module, test_split, tmp_path, error):
    old = tmp_path / "export"
    old.mkdir()
    (old / "saved_model.pb").write_text("old")
    module, signature = serving_module
    expected = score(signature, test_split.texts[:4])
    expected.scores[2, 1] += error
    with (
        saved_model.parity_process() as fresh,
        pytest.raises(
            UserError,
            match=r"must be within 0\.0001 of the job's\. Received: a difference of (2\.00e-04|nan) on 4 .*Nothing",
        ),
    ):
        saved_model.write_saved_model(module, signature, str(old), expected, fresh)
    assert (old / "saved_model.pb").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_a_check_that_is_killed_leaves_nothing(serving_module, test_split, tmp_path):
    module, signature = serving_module
    with saved_model.parity_process() as fresh:
        fresh.process.kill()
        expected = score(signature, test_split.texts[:4])
        with pytest.raises(UserError, match="SIGKILL"):
            saved_model.write_saved_model(module, signature, str(tmp_path / "export"), expected, fresh)
    assert not list(tmp_path.iterdir())


def test_the_process_of_the_check_ends_with_its_block():
    with pytest.raises(KeyError), saved_model.parity_process() as fresh:
        raise KeyError
    assert fresh.process.returncode is not None
    assert not Path(fresh.folder).parent.exists()
