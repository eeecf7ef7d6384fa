"""A new run from the weights of another one: what is taken, what is refused, and that it resumes without its parent."""

import dataclasses
import json
import logging
import random
import shutil

import numpy as np
import pytest
import tensorflow as tf
from helpers import python, random_encoder_inputs, write_reviews
from interruptions import JobCommand, assert_equal_runs, assert_equal_tensors, send_signal_at

from trainer.data.label_scale import LabelScale, restore_units
from trainer.encoders import classifier, native
from trainer.errors import UserError
from trainer.train import builder, warm_start
from trainer.train.run_files import resolve_run_files


@pytest.fixture(scope="module")
def parent(finished_run):
    return warm_start.read_parent(str(finished_run))


@pytest.fixture
def take(restored_job, caplog):
    """A function (parent, changes of the manifest) -> (the job, its weights before, its log)."""

    def start(found, **changes):
        job = dataclasses.replace(restored_job, manifest=dataclasses.replace(restored_job.manifest, **changes))
        before = values(job.model)
        with caplog.at_level(logging.INFO, "trainer"):
            started = warm_start.start_from_parent(job, found)
        return started, before, caplog.text

    return start


def values(model) -> dict[str, np.ndarray]:
    return {name: variable.numpy() for name, variable in native.variables_by_name(model.variables).items()}


def changed(before: dict[str, np.ndarray], model) -> set[str]:
    return {name for name, value in values(model).items() if not np.array_equal(value, before[name])}


# --- What a parent is -------------------------------------------------------------------------------


def test_a_run_its_best_and_its_export_have_the_same_weights(finished_run, take, restored_job):
    expected = tf.train.Checkpoint(model=restored_job.model)
    expected.read(tf.train.latest_checkpoint(str(finished_run / "best"))).assert_existing_objects_matched()
    of_run = values(restored_job.model)
    hashes = []
    for path in (finished_run, finished_run / "best", finished_run / "export"):
        for variable in restored_job.model.variables:
            variable.assign(tf.zeros_like(variable))
        found = warm_start.read_parent(str(path))
        job, _, log = take(found)
        assert changed(of_run, job.model) == set()
        assert (found.labels, found.vocabulary) == (job.manifest.labels, job.manifest.vocabulary.sha256)
        assert (job.parent.path, job.config.init_from) == (str(path), str(path))
        assert "The classification head was loaded as well." in log
        hashes.append(found.parent.sha256)
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_parent_is_read_in_a_bucket(simulator, finished_run):
    code = """
from trainer.train import warm_start
fs.copy_folder(sys.argv[1], "gs://bucket/run/best")
print(warm_start.read_parent("gs://bucket/run").parent.sha256, warm_start.read_parent("gs://bucket/run").labels)
"""
    expected = warm_start.read_parent(str(finished_run)).parent.sha256
    assert simulator.storage_python(code, str(finished_run / "best"))[0] == f"{expected} None"


@pytest.mark.parametrize("name", ["missing", "empty", "run/checkpoints", "encoder"])
def test_what_is_no_run_is_refused(finished_run, tiny, tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "run").symlink_to(finished_run)
    (tmp_path / "encoder").symlink_to(tiny / "encoder")
    with pytest.raises(UserError) as caught:
        warm_start.read_parent(f"{tmp_path}/{name}")
    (problem,) = caught.value.problems
    assert problem.setting == "--init_from"
    assert f"{tmp_path}/{name}" in problem.received


def test_corrupt_weights_are_refused(model_dir):
    (data,) = (model_dir / "best").glob("*.data-*")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with pytest.raises(UserError, match="--init_from must have complete weights"):
        warm_start.read_parent(str(model_dir))


# --- What is taken ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (("negative", "neutral", "positive"), "negative, neutral, positive"),
        (("positive", "negative"), "another order"),
        ((), "a number"),
        (None, "not known"),
    ],
)
def test_the_head_is_new_for_other_classes(parent, take, labels, words):
    job, before, log = take(dataclasses.replace(parent, labels=labels))
    different = changed(before, job.model)
    assert "word_embeddings/embeddings" in different
    assert not {"classifier/kernel", "classifier/bias"} & different
    assert "The head is new: " in log
    assert words in log


@pytest.mark.parametrize(
    ("several", "words"),
    [
        (True, "that run predicts several labels, this one one class of them"),
        (False, "that run predicts one class, this one several"),
    ],
)
def test_the_head_is_new_for_another_kind(parent, take, several, words):
    changes = {} if several else {"kind": "multi_label"}
    job, before, log = take(dataclasses.replace(parent, several_labels=several), **changes)
    assert not {"classifier/kernel", "classifier/bias"} & changed(before, job.model)
    assert words in log


def test_two_regressions_share_the_head(parent, take):
    job, before, _ = take(dataclasses.replace(parent, labels=()), labels=())
    assert {"classifier/kernel", "classifier/bias"} <= changed(before, job.model)


def test_another_vocabulary_is_refused(parent, take):
    with pytest.raises(UserError, match=r"^--data_dir must be prepared with the vocabulary of --init_from="):
        take(dataclasses.replace(parent, vocabulary="0" * 64))


def test_another_architecture_is_refused_by_its_variables(parent, restored_job, finished_run):
    own = restored_job.encoder.architecture
    for change, name in (({"layers": 1}, "transformer/layer_1/"), ({"inner_size": 8}, "transformer/layer_0/inter")):
        encoder = native.build_encoder(dataclasses.replace(own, **change), output_range=1)
        model = classifier.build_classifier(encoder, 2, 0.1, 0)
        with pytest.raises(UserError) as caught:
            warm_start.start_from_parent(dataclasses.replace(restored_job, model=model), parent)
        (problem,) = caught.value.problems
        assert (problem.setting, problem.advice) == ("--init_from", f"Use its own encoder, --encoder={parent.encoder}.")
        assert name in problem.received
        assert str(finished_run) in problem.received


def with_positions(job, positions):
    """The job as it is with model.max_positions set, or with an encoder of so many positions if that is None."""
    encoder = native.build_encoder(dataclasses.replace(job.encoder.architecture, max_positions=positions))
    asked = positions if positions > 512 else None
    settings = dataclasses.replace(job.config.model, max_positions=asked)
    config = dataclasses.replace(job.config, model=settings)
    return dataclasses.replace(job, model=classifier.build_classifier(encoder, 2, 0.1, 0), config=config)


def test_a_parents_positions_are_extended_to_the_setting(parent, restored_job, take):
    take(parent)
    expected = values(restored_job.model)["position_embedding/embeddings"]
    started = warm_start.start_from_parent(with_positions(restored_job, 600), parent)
    table = values(started.model)["position_embedding/embeddings"]
    assert (table == np.concatenate([expected, expected[:88]])).all()


def test_a_parent_with_more_positions_is_refused(parent, restored_job):
    with pytest.raises(UserError) as caught:
        warm_start.start_from_parent(with_positions(restored_job, 300), parent)
    (problem,) = caught.value.problems
    assert (problem.setting, problem.advice) == ("model.max_positions", "Set it with --model.max_positions=512.")


# --- Resuming ---------------------------------------------------------------------------------------


@pytest.fixture
def child_files(model_dir):
    """The files of a finished run that names a parent which is gone."""
    identity = json.loads((model_dir / "identity.json").read_text())
    identity["parent"] = {"path": "gone/run", "sha256": "a" * 64}
    (model_dir / "identity.json").write_text(json.dumps(identity))
    return resolve_run_files(str(model_dir))


@pytest.mark.parametrize("init_from", ["gone/run", ""])
def test_a_run_that_has_started_does_not_read_its_parent(child_files, restored_job, init_from):
    found = warm_start.find_warm_start(child_files, init_from)
    assert found == warm_start.WarmStart(builder.Parent("gone/run", "a" * 64), None)
    job = warm_start.start_from_parent(restored_job, found)
    assert (job.parent, job.config.init_from) == (found.parent, "gone/run")


def test_a_run_that_has_started_does_not_change_its_parent(child_files, finished_run):
    with pytest.raises(UserError, match=r"^--init_from must .*Received: other; .* gone/run\."):
        warm_start.find_warm_start(child_files, "other")
    own = resolve_run_files(str(finished_run))
    with pytest.raises(UserError, match="from its encoder alone"):
        warm_start.find_warm_start(own, str(finished_run))
    assert warm_start.find_warm_start(own, "") is None


@pytest.mark.long
def test_a_killed_child_resumes_bit_for_bit_without_its_parent(flags, finished_run, model_dir, tmp_path):
    """With other classes: three, of which the parent knows two."""
    source = write_reviews(tmp_path / "reviews.csv", 200, seed=5)
    rows = source.read_text(encoding="utf-8").splitlines()
    neutral = [row.rpartition(",")[0] + ",neutral" if number % 3 == 2 else row for number, row in enumerate(rows)]
    source.write_text("\n".join([rows[0], *neutral[1:]]) + "\n", encoding="utf-8")
    encoder = next(flag for flag in flags if flag.startswith("--encoder="))
    data = f"{tmp_path}/data"
    python("scripts/prepare_data.py", "--task=csv", f"--source={source}", encoder, f"--output={data}", check=True)
    keys = ("--training.steps=60", "--training.save_every=10", "--training.eval_every=30", "--seed=3")
    job = JobCommand([*flags, f"--data_dir={data}", f"--init_from={model_dir}", *keys], 1)
    whole = job.run_to_end(tmp_path / "whole")
    killed = job.start(tmp_path / "killed")
    assert send_signal_at(killed, "training", random.Random(1))
    killed.wait(60)
    shutil.rmtree(model_dir)
    resumed = job.run_to_end(tmp_path / "killed")
    assert_equal_runs(resumed, whole)
    result = json.loads((resumed / "result.json").read_text())
    expected = warm_start.read_parent(str(finished_run)).parent.sha256
    assert result["parent"] == {"path": str(model_dir), "sha256": expected}
    assert json.loads((resumed / "identity.json").read_text())["parent"] == result["parent"]
    assert f"init_from: {model_dir}\n" in (resumed / "config.yaml").read_text()
    with pytest.raises(AssertionError):
        assert_equal_tensors(resumed / "best", finished_run / "best")


@pytest.mark.parametrize("part", ["", "best", "export"])
def test_numbers_of_another_scale_are_predicted_as_before(points_run, points_job, part):
    found = warm_start.read_parent(str(points_run / part).rstrip("/"))
    assert found.scale == points_job.label_use.scale
    inputs = {name: tf.constant(value) for name, value in random_encoder_inputs(4, 24, 100).items()}
    before = [variable.numpy() for variable in points_job.model.variables]
    predicted = []
    try:
        for scale in (found.scale, LabelScale(-3.0, 0.25), None):
            use = dataclasses.replace(points_job.label_use, scale=scale)
            started = warm_start.start_from_parent(dataclasses.replace(points_job, label_use=use), found)
            predicted.append(restore_units(started.model(inputs).numpy(), scale))
    finally:
        for variable, value in zip(points_job.model.variables, before, strict=True):
            variable.assign(value)
    assert np.ptp(predicted[0]) > 0
    np.testing.assert_allclose(predicted[1], predicted[0], rtol=1e-5)
    np.testing.assert_allclose(predicted[2], predicted[0], rtol=1e-5)
