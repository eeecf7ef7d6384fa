"""Train steps on a tiny encoder, by one replica here and by two in a process of its own (this file, run)."""

import dataclasses
import functools
import sys

import numpy as np
import pytest
import tensorflow as tf
from conftest import python

from trainer import data, encoders, evaluation, model, native, optim, records, steps, strategies

RATES = (0.0, 0.1)
BATCH = 5  # not a multiple of 2: two replicas have a row that weighs nothing


@dataclasses.dataclass
class Trial:
    model: object
    sums: steps.Totals
    window: object
    batches: object


@functools.cache
def rebuilt(encoder: str):
    return native.rebuild(encoders.load(encoder))


def trial(strategy, tiny, prepared, rate, examples=1000, parts=1) -> Trial:
    """The tiny encoder with dropout `rate`, ready to train on the reviews."""
    replicas = strategy.num_replicas_in_sync
    architecture, values = rebuilt(f"{tiny}/encoder")
    architecture = dataclasses.replace(architecture, dropout=rate, attention_dropout=rate)
    with strategy.scope():
        built = model.build(model.native_encoder(architecture, values, "float32"), 2, rate, seed=3)
        optimizer = optim.adamw(1e-3, 10, 0.1, 0.01)
        optim.create_slots(optimizer, built.trainable_variables)
        sums = steps.totals()
    manifest = records.read_manifest(str(prepared))
    stream = data.train_batches(str(prepared), manifest, data.Order(0, True, 1 << 18), BATCH, 0, examples)
    inputs = data.to_inputs(stream, manifest, data.Layout(BATCH, 24, "head", 8, replicas, parts))
    window = steps.train_window(strategy, steps.train_step(built, optimizer, sums, 3, 1.0, parts))
    return Trial(built, sums, window, evaluation.distribute(strategy, inputs))


def one_replica() -> tf.distribute.Strategy:
    return tf.distribute.OneDeviceStrategy("/cpu:0")


def values(trial: Trial) -> list[np.ndarray]:
    return [v.numpy() for v in trial.model.trainable_variables]


def sums(trial: Trial) -> list[float]:
    return [float(v.numpy()) for v in (trial.sums.weight, trial.sums.loss, trial.sums.correct)]


@pytest.fixture(scope="module")
def trained(tiny, prepared) -> dict:
    """rate -> (values before, values after six steps in one window, sums, the trial)."""
    found = {}
    for rate in RATES:
        one = trial(one_replica(), tiny, prepared, rate)
        before = values(one)
        one.window(one.batches, tf.constant(6))
        found[rate] = before, values(one), sums(one), one
    return found


@pytest.fixture(scope="module")
def on_two_replicas(tiny, prepared, tmp_path_factory):
    """The same by two replicas, in windows of 1, 2 and 3 steps."""
    output = tmp_path_factory.mktemp("replicas") / "values.npz"
    python(__file__, tiny, prepared, output, check=True)
    return np.load(output)


@pytest.mark.parametrize("rate", RATES)
def test_every_parameter_moves(trained, rate):
    before, after, _, one = trained[rate]
    for variable, a, b in zip(one.model.trainable_variables, before, after, strict=True):
        assert (a != b).any(), variable.name
        assert np.isfinite(b).all(), variable.name


@pytest.mark.parametrize("rate", RATES)
def test_two_replicas_end_with_the_same_parameters_and_sums(trained, on_two_replicas, rate):
    _, after, totals, _ = trained[rate]
    for index, ours in enumerate(after):
        assert np.abs(on_two_replicas[f"{rate}:{index}"] - ours).max() <= 1e-5
    assert totals[0] == 6 * BATCH
    assert on_two_replicas[f"{rate}:sums"] == pytest.approx(totals, rel=1e-5)


@pytest.mark.parametrize("parts", [2, 3])
def test_a_batch_in_parts_is_the_batch_whole(trained, tiny, prepared, parts):
    """With a short last part, and with dropout: parts count by their weight, and masks by the global batch's row."""
    _, after, totals, _ = trained[0.1]
    one = trial(one_replica(), tiny, prepared, 0.1, parts=parts)
    one.window(one.batches, tf.constant(6))
    for ours, theirs in zip(values(one), after, strict=True):
        assert np.abs(ours - theirs).max() <= 1e-5
    assert sums(one) == pytest.approx(totals, rel=1e-5)


def test_dropout_makes_a_difference(trained):
    assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(trained[0.0][1], trained[0.1][1], strict=True))


def test_windows_of_any_length_and_width_are_traced_once(trained):
    one = trained[0.1][3]
    for count in (1, 3):
        one.window(one.batches, tf.constant(count))
    assert one.window.experimental_get_tracing_count() == 1


def test_the_loss_is_the_mean_over_the_rows_that_weigh(tiny, prepared):
    one = trial(one_replica(), tiny, prepared, 0.0, examples=3)
    manifest = records.read_manifest(str(prepared))
    (columns,) = data.train_batches(str(prepared), manifest, data.Order(0, True, 1 << 18), BATCH, 0, 3)
    (batch,) = data.to_inputs(iter([columns]), manifest, data.Layout(BATCH, 24, "head", 8, 1))
    logits = one.model({name: batch[name] for name in native.INPUT_NAMES}).numpy()[:3].astype(np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -np.log(probabilities[range(3), columns.labels])
    one.window(one.batches, tf.constant(1))
    weight, loss, correct = sums(one)
    assert weight == 3
    assert loss == pytest.approx(expected.sum(), rel=1e-5)
    assert correct == (logits.argmax(axis=1) == columns.labels).sum()
    steps.reset(one.sums)
    assert sums(one) == [0, 0, 0]


def test_the_first_step_that_is_not_finite_is_remembered(trained):
    one = trained[0.0][3]
    assert int(one.sums.bad_step) == 0
    bias = one.model.get_layer("classifier").bias
    bias.assign([np.nan, 0.0])
    one.window(one.batches, tf.constant(3))
    assert int(one.sums.bad_step) == 7


def test_losses_are_cross_entropy_or_the_squared_error():
    logits = tf.math.log([[0.25, 0.75], [0.5, 0.5]])
    assert steps.losses(tf.constant([1, 0]), logits).numpy() == pytest.approx(-np.log([0.75, 0.5]))
    assert steps.losses(tf.constant([1.0, -2.0]), tf.constant([[3.0], [-2.5]])).numpy().tolist() == [4.0, 0.25]


def main(tiny, prepared, output) -> None:
    strategy = strategies.build("mirrored", strategies.Machine(virtual_devices=2)).strategy
    found = {}
    for rate in RATES:
        two = trial(strategy, tiny, prepared, rate)
        for count in (1, 2, 3):
            two.window(two.batches, tf.constant(count))
        found |= {f"{rate}:{index}": value for index, value in enumerate(values(two))}
        found[f"{rate}:sums"] = sums(two)
    np.savez(output, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
