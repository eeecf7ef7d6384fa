"""Train steps on a tiny encoder, by one replica here, by two and by four in processes of their own."""

import concurrent.futures
import dataclasses
import functools
import sys

import numpy as np
import pytest
import tensorflow as tf
from helpers import python

from trainer.data import batching, manifests, model_inputs
from trainer.distributed import strategies
from trainer.encoders import classifier, native, registry
from trainer.train import optimizers, steps

RATES = (0.0, 0.1)
BATCH = 5  # not a multiple of 2 or 4: replicas have rows that weigh nothing
STEPS = 200
REPLICAS = (2, 4)


@dataclasses.dataclass
class Trial:
    model: object
    sums: steps.TrainSums
    window: object
    batches: object


@functools.cache
def rebuilt(encoder: str):
    return native.rebuild_encoder(registry.load_saved_model(encoder))


def trial(strategy, tiny, prepared, rate, examples=BATCH * 2 * STEPS, parts=1) -> Trial:
    """The tiny encoder with dropout `rate`, ready to train on the reviews."""
    replicas = strategy.num_replicas_in_sync
    architecture, values = rebuilt(f"{tiny}/encoder")
    architecture = dataclasses.replace(architecture, dropout=rate, attention_dropout=rate)
    with strategy.scope():
        built = classifier.build_classifier(
            classifier.build_native_encoder(architecture, values, "float32"), 2, rate, seed=3
        )
        optimizer = optimizers.build_adamw(1e-4, 2 * STEPS, 0.1, 0.01)
        optimizers.create_slots(optimizer, built.trainable_variables)
        sums = steps.create_train_sums()
    manifest = manifests.read_manifest(str(prepared))
    stream = batching.train_batches(
        str(prepared), manifest, batching.ShuffleOrder(0, True, 1 << 18), BATCH, 0, examples
    )
    inputs = model_inputs.to_model_inputs(
        stream, manifest, model_inputs.BatchLayout(BATCH, 24, "head", 8, replicas, parts)
    )
    window = steps.build_inner_loop(strategy, steps.build_train_step(built, optimizer, sums, 3, 1.0, parts))
    return Trial(built, sums, window, strategies.distribute_batches(strategy, inputs))


def one_replica() -> tf.distribute.Strategy:
    return tf.distribute.OneDeviceStrategy("/cpu:0")


def values(trial: Trial) -> list[np.ndarray]:
    return [v.numpy() for v in trial.model.trainable_variables]


def sums(trial: Trial) -> list[float]:
    return [float(v.numpy()) for v in (trial.sums.weight, trial.sums.loss, trial.sums.correct)]


@pytest.fixture(scope="module")
def trained(tiny, prepared) -> dict:
    """rate -> (values before, values after STEPS steps in one window, sums, the trial)."""
    found = {}
    for rate in RATES:
        one = trial(one_replica(), tiny, prepared, rate)
        before = values(one)
        one.window(one.batches, tf.constant(STEPS))
        found[rate] = before, values(one), sums(one), one
    return found


@pytest.fixture(scope="module")
def on_replicas(tiny, prepared, tmp_path_factory):
    """The same by several replicas, in windows of 1, 2 and more steps."""
    folder = tmp_path_factory.mktemp("replicas")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        outputs = {replicas: folder / f"{replicas}.npz" for replicas in REPLICAS}
        done = [pool.submit(python, __file__, tiny, prepared, str(r), file, check=True) for r, file in outputs.items()]
    for process in done:
        process.result()
    return {replicas: np.load(folder / f"{replicas}.npz") for replicas in REPLICAS}


@pytest.mark.parametrize("rate", RATES)
def test_every_parameter_moves(trained, rate):
    before, after, _, one = trained[rate]
    for variable, a, b in zip(one.model.trainable_variables, before, after, strict=True):
        assert (a != b).any(), variable.name
        assert np.isfinite(b).all(), variable.name


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("replicas", REPLICAS)
def test_replicas_end_with_the_parameters_and_sums_of_one(trained, on_replicas, rate, replicas):
    _, after, totals, _ = trained[rate]
    theirs = [on_replicas[replicas][f"{rate}:{index}"] for index in range(len(after))]
    largest = max(np.abs(a - b).max() for a, b in zip(after, theirs, strict=True))
    print(f"{replicas} replicas, dropout {rate}, {STEPS} steps: largest difference of a parameter {largest:.1e}")
    assert largest <= 1e-5
    assert totals[0] == STEPS * BATCH
    assert on_replicas[replicas][f"{rate}:sums"] == pytest.approx(totals, rel=1e-5)


@pytest.mark.parametrize("parts", [2, 3])
def test_a_batch_in_parts_is_the_batch_whole(trained, tiny, prepared, parts):
    """With a short last part, and with dropout: parts count by their weight, and masks by the global batch's row."""
    _, after, totals, _ = trained[0.1]
    one = trial(one_replica(), tiny, prepared, 0.1, parts=parts)
    one.window(one.batches, tf.constant(STEPS))
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


def test_the_first_step_that_is_not_finite_is_remembered(trained):
    one = trained[0.0][3]
    assert int(one.sums.bad_step) == 0
    bias = one.model.get_layer("classifier").bias
    bias.assign([np.nan, 0.0])
    one.window(one.batches, tf.constant(3))
    assert int(one.sums.bad_step) == STEPS + 1


def test_losses_are_cross_entropy_or_the_squared_error():
    logits = tf.math.log([[0.25, 0.75], [0.5, 0.5]])
    assert steps.example_losses(tf.constant([1, 0]), logits).numpy() == pytest.approx(-np.log([0.75, 0.5]))
    assert steps.example_losses(tf.constant([1.0, -2.0]), tf.constant([[3.0], [-2.5]])).numpy().tolist() == [4.0, 0.25]


def main(tiny, prepared, replicas, output) -> None:
    strategy = strategies.build_strategy("mirrored", strategies.DeviceRequest(virtual_devices=int(replicas))).strategy
    found = {}
    for rate in RATES:
        several = trial(strategy, tiny, prepared, rate)
        for count in (1, 2, STEPS - 3):
            several.window(several.batches, tf.constant(count))
        found |= {f"{rate}:{index}": value for index, value in enumerate(values(several))}
        found[f"{rate}:sums"] = sums(several)
    np.savez(output, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
