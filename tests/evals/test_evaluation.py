"""Predictions of a split: each example once, in the order of its shards, for any batch size."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from trainer.data import batching, records, tokenization
from trainer.evals import evaluation
from trainer.runtime.signals import Stopped
from trainer.train import steps


@pytest.fixture(scope="module")
def columns(job):
    return records.read_shards(job.config.data_dir, job.manifest.splits["validation"].shards, job.manifest)


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
