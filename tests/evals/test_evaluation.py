"""Predictions of a split: each example once, in the order of its shards, for any batch size."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
from helpers import python

from trainer.data import batching, model_inputs, records, tokenization
from trainer.evals import evaluation
from trainer.runtime.signals import Stopped
from trainer.train import builder, steps


@pytest.fixture(scope="module")
def columns(job):
    return records.read_split(job.config.data_dir, job.manifest, "validation")


@pytest.fixture(scope="module")
def eval_step(job):
    return steps.build_eval_step(job.strategy, steps.build_replica_eval_step(job.eval_model))


def predict(job, eval_step, columns, batch_size, **options):
    layout = dataclasses.replace(job.layout, batch_size=batch_size)
    return evaluation.predict_rows(
        job.strategy, eval_step, columns, job.manifest, layout, name="", progress=False, **options
    )


def test_a_text_has_the_same_scores_in_a_batch_as_alone(job, eval_step, columns):
    special = job.manifest.vocabulary
    predictions = predict(job, eval_step, columns, 7)
    assert predictions.ids == columns.ids
    assert (predictions.labels == columns.labels).all()
    for row in range(0, len(columns), 5):
        tokens = tf.RaggedTensor.from_row_lengths(columns.tokens.row(row), [len(columns.tokens.row(row))])
        ends = tokenization.SpecialTokens(special.start, special.end, special.padding)
        alone = job.eval_model(
            tokenization.pack_inputs(tokens, None, ends, job.layout.seq_length, job.layout.truncation)
        ).numpy()[0]
        assert predictions.logits[row] == pytest.approx(alone, abs=1e-5)
        assert predictions.losses[row] == pytest.approx(
            np.log(np.exp(alone).sum()) - alone[columns.labels[row]], abs=1e-5
        )


@pytest.mark.parametrize("batch_size", [1, 30, 64])
def test_predictions_do_not_depend_on_the_batch_size(job, eval_step, columns, batch_size):
    one, other = predict(job, eval_step, columns, 8), predict(job, eval_step, columns, batch_size)
    assert len(other.ids) == len(other.losses) == 30
    assert other.ids == one.ids
    assert other.logits == pytest.approx(one.logits, abs=1e-5)
    assert other.losses == pytest.approx(one.losses, abs=1e-5)


@pytest.mark.parametrize("fixed_rows", [False, True])
def test_all_shapes_of_batches_are_evaluated_by_one_trace(job, columns, fixed_rows):
    step, shapes = steps.build_replica_eval_step(job.eval_model), []

    def traced(batch):
        shapes.append(batch["input_word_ids"].shape.as_list())
        return step(batch)

    eval_step = steps.build_eval_step(job.strategy, traced)
    layout = dataclasses.replace(job.layout, batch_size=2, pad_multiple=2, fixed_rows=fixed_rows)
    several = [
        evaluation.predict_rows(job.strategy, eval_step, rows, job.manifest, layout, name="", progress=False)
        for rows in (columns, batching.select_rows(columns, np.arange(5)))
    ]
    assert shapes == [[2 if fixed_rows else None, None]]
    assert len(set(model_inputs.padded_widths(columns, layout))) > 3
    assert several[1].logits == pytest.approx(several[0].logits[:5], abs=1e-5)


def test_each_width_has_a_trace_where_steps_have_to_know_it(job, eval_step, columns):
    step, shapes, widths = steps.build_replica_eval_step(job.eval_model), [], (8, 16, 24)

    def traced(batch):
        shapes.append(batch["input_word_ids"].shape.as_list())
        return step(batch)

    layout = dataclasses.replace(job.layout, batch_size=2, pad_multiple=8)
    by_width = steps.build_eval_step(job.strategy, traced, widths)
    found = evaluation.predict_rows(job.strategy, by_width, columns, job.manifest, layout, name="", progress=False)
    assert shapes == [[2, width] for width in widths]
    assert len(set(model_inputs.padded_widths(columns, layout))) > 1
    expected = predict(job, eval_step, columns, 8)
    assert found.logits == pytest.approx(expected.logits, abs=1e-5)
    assert found.losses == pytest.approx(expected.losses, abs=1e-5)


def test_short_texts_are_evaluated_more_at_a_time(job, eval_step, columns):
    shortened = [columns.tokens.row(row)[: 2 + row % 11] for row in range(len(columns))]
    columns = dataclasses.replace(columns, tokens=records.to_ragged(shortened))
    layout = dataclasses.replace(job.eval_layout, batch_size=4, pad_multiple=2)
    order = batching.evaluation_order(columns)
    sizes = model_inputs.plan_evaluation(model_inputs.padded_widths(columns, layout)[order], layout)
    assert not layout.fixed_rows
    assert len(set(sizes)) > 1
    calls = []
    arguments = (job.strategy, eval_step, columns, job.manifest, layout)
    found = evaluation.predict_rows(*arguments, name="", progress=False, after_batch=lambda: calls.append(1))
    assert len(calls) == len(sizes)
    expected = predict(job, eval_step, columns, 8)
    assert found.ids == expected.ids
    assert found.logits == pytest.approx(expected.logits, abs=1e-5)
    assert found.losses == pytest.approx(expected.losses, abs=1e-5)


def test_replicas_give_the_predictions_of_one(finished_run, evaluated, tmp_path):
    replicas = ["--strategy=mirrored", "--virtual_devices=3"]
    predictions = f"--predictions={tmp_path}/predictions.jsonl"
    python("-m", "trainer.task", "--mode=evaluate", f"--model_dir={finished_run}", predictions, *replicas, check=True)
    found = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [row["id"] for row in found] == [row["id"] for row in evaluated[1]]
    for row, expected in zip(found, evaluated[1], strict=True):
        assert row["scores"] == pytest.approx(expected["scores"], abs=1e-5)
        assert row["loss"] == pytest.approx(expected["loss"], abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "fixed"),
    [({}, False), ({"model": {"compile": "xla"}}, True), ({"data": {"pad_multiple": 24}}, True)],
)
def test_shapes_are_fixed_where_each_would_be_compiled(job, changes, fixed):
    config = job.config
    for section, values in changes.items():
        config = dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **values)})
    changed = dataclasses.replace(job, config=config, layout=builder.batch_layout(config, job.strategy))
    assert changed.eval_layout.fixed_rows == fixed
    assert changed.layout.fixed_rows  # Of training, always.


def test_after_batch_can_stop_the_evaluation(job, eval_step, columns):
    calls = []

    def stop_after_the_second_batch():
        calls.append(1)
        if len(calls) == 2:
            raise Stopped

    with pytest.raises(Stopped):
        predict(job, eval_step, columns, 8, after_batch=stop_after_the_second_batch)
    assert len(calls) == 2


def test_a_split_smaller_than_a_batch_is_predicted_completely(job, eval_step, columns):
    few = batching.select_rows(columns, np.arange(3))
    assert predict(job, eval_step, few, 16).logits == pytest.approx(
        predict(job, eval_step, columns, 16).logits[:3], abs=1e-5
    )
