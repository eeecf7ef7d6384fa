"""Training of a tiny encoder on one replica, and on two and on four in other processes."""

import concurrent.futures
import sys

import numpy as np
import pytest
import tensorflow as tf
from step_training import (
    BATCH,
    STEPS,
    assert_equal_values,
    load_values,
    one_replica,
    run_script,
    save_values,
    set_up_training,
    several_replicas,
    sums,
    values,
)

from trainer.data import batching, manifests, model_inputs
from trainer.encoders import native
from trainer.train import steps

RATES = (0.0, 0.1)
REPLICAS = (2, 4)


@pytest.fixture(scope="module")
def trained(tiny, prepared) -> dict:
    """rate -> (values before, values after STEPS steps in one window, sums, the training)."""
    results = {}
    for rate in RATES:
        one = set_up_training(one_replica(), tiny, prepared, rate)
        before = values(one)
        one.window(one.batches, tf.constant(STEPS))
        results[rate] = before, values(one), sums(one), one
    return results


@pytest.fixture(scope="module")
def on_replicas(tiny, prepared, tmp_path_factory):
    """The same, with dropout, on several replicas, in calls of 1, 2 and more steps."""
    folder = tmp_path_factory.mktemp("replicas")
    outputs = {replicas: folder / f"{replicas}.npz" for replicas in REPLICAS}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(lambda item: run_script(__file__, tiny, prepared, *item), outputs.items()))
    return {replicas: np.load(output) for replicas, output in outputs.items()}


@pytest.mark.parametrize("rate", RATES)
def test_training_changes_every_parameter(trained, rate):
    before, after, _, one = trained[rate]
    for variable, a, b in zip([*one.model.trainable_variables, *one.averages.variables], before, after, strict=True):
        assert (a != b).any(), variable.name
        assert np.isfinite(b).all(), variable.name


@pytest.mark.parametrize("replicas", REPLICAS)
def test_several_replicas_give_the_result_of_one(trained, on_replicas, replicas):
    """With dropout: they draw the masks of one."""
    _, after, totals, _ = trained[0.1]
    others, sums_there = load_values(on_replicas[replicas], "trained")
    assert_equal_values(after, {f"{replicas} replicas, {STEPS} steps": others})
    assert totals[0] == STEPS * BATCH
    assert sums_there == pytest.approx(totals, rel=1e-5)


@pytest.mark.parametrize("parts", [2, 3])
def test_micro_batches_give_the_result_of_one_batch(trained, tiny, prepared, parts):
    """With a short last micro-batch and dropout: losses are weighted, and masks depend on the global batch's row."""
    _, after, totals, _ = trained[0.1]
    one = set_up_training(one_replica(), tiny, prepared, 0.1, parts=parts)
    one.window(one.batches, tf.constant(STEPS))
    for value, expected in zip(values(one), after, strict=True):
        assert np.abs(value - expected).max() <= 1e-5
    assert sums(one) == pytest.approx(totals, rel=1e-5)


def test_wider_batches_give_the_result_of_narrow_ones(trained, tiny, prepared):
    """Without dropout, whose masks depend on the width."""
    _, after, totals, _ = trained[0.0]
    wide = set_up_training(one_replica(), tiny, prepared, 0.0, pad_multiple=24)
    wide.window(wide.batches, tf.constant(STEPS))
    assert_equal_values(after, {"one width": values(wide)})
    assert sums(wide) == pytest.approx(totals, rel=1e-5)


def test_dropout_changes_the_parameters(trained):
    assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(trained[0.0][1], trained[0.1][1], strict=True))


def test_the_inner_loop_is_traced_once_for_all_lengths(trained):
    one = trained[0.1][3]
    for count in (1, 3):
        one.window(one.batches, tf.constant(count))
    assert one.window.experimental_get_tracing_count() == 1


def test_the_loss_leaves_padding_rows_out(tiny, prepared):
    one = set_up_training(one_replica(), tiny, prepared, 0.0, examples=3)
    manifest = manifests.read_manifest(str(prepared))
    (columns,) = batching.train_batches(str(prepared), manifest, batching.ShuffleOrder(0, True, 1 << 18), BATCH, 0, 3)
    (batch,) = model_inputs.to_model_inputs(
        iter([columns]), manifest, model_inputs.BatchLayout(BATCH, 24, "head", 8, 1)
    )
    logits = one.model({name: batch[name] for name in native.INPUT_NAMES}).numpy()[:3].astype(np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -np.log(probabilities[range(3), columns.labels])
    one.window(one.batches, tf.constant(1))
    weight, loss, correct = sums(one)
    assert weight == 3
    assert loss == pytest.approx(expected.sum(), rel=1e-5)
    assert correct == (logits.argmax(axis=1) == columns.labels).sum()
    steps.reset_sums(one.sums)
    assert sums(one) == [0, 0, 0]


def test_the_first_step_that_is_not_finite_is_recorded(trained):
    one = trained[0.0][3]
    assert int(one.sums.bad_step) == 0
    bias = one.model.get_layer("classifier").bias
    bias.assign([np.nan, 0.0])
    one.window(one.batches, tf.constant(3))
    assert int(one.sums.bad_step) == STEPS + 1


def test_a_batch_whose_weights_are_all_0_has_no_gradient(tiny, prepared):
    one = set_up_training(one_replica(), tiny, prepared, 0.0, weights=lambda rows: np.zeros(rows, np.float32))
    one.window(one.batches, tf.constant(2))
    assert sums(one) == [0, 0, 0]
    assert int(one.sums.bad_step) == 0
    assert all(np.isfinite(value).all() for value in values(one))


@pytest.mark.parametrize("parts", [1, 5])
def test_an_examples_weight_counts_it_so_many_times(tiny, prepared, parts):
    """Weights of 1 and 3 against a numpy sum over the same logits."""
    weights = np.array([1, 3, 0, 1, 2], np.float32)
    one = set_up_training(one_replica(), tiny, prepared, 0.0, BATCH, parts, weights=lambda rows: weights)
    manifest = manifests.read_manifest(str(prepared))
    order = batching.ShuffleOrder(0, True, 1 << 18)
    (columns,) = batching.train_batches(str(prepared), manifest, order, BATCH, 0, BATCH)
    (batch,) = model_inputs.to_model_inputs(
        iter([columns]), manifest, model_inputs.BatchLayout(BATCH, 24, "head", 8, 1)
    )
    logits = one.model({name: batch[name] for name in native.INPUT_NAMES}).numpy().astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = -(weights * log_p[np.arange(BATCH), columns.labels]).sum()
    correct = (weights * (logits.argmax(1) == columns.labels)).sum()
    one.window(one.batches, tf.constant(1))
    assert sums(one) == pytest.approx([weights.sum(), expected, correct], rel=1e-5)


def test_several_labels_and_numbers_have_no_accuracy():
    assert float(steps.correct_weight(tf.ones([2, 3]), tf.ones([2, 3]), tf.ones([2]))) == 0
    assert float(steps.correct_weight(tf.ones([2]), tf.ones([2, 1]), tf.ones([2]))) == 0


def main(tiny, prepared, replicas, output) -> None:
    several = set_up_training(several_replicas(replicas), tiny, prepared, 0.1)
    for count in (1, 2, STEPS - 3):
        several.window(several.batches, tf.constant(count))
    save_values(output, {"trained": several})


if __name__ == "__main__":
    main(*sys.argv[1:])
