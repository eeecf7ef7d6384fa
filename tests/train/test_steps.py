"""Training of a tiny encoder on one replica, and on two and on four in other processes."""

import concurrent.futures
import dataclasses
import functools
import os
import sys

import numpy as np
import pytest
import tensorflow as tf
from fakes.encoders import SMALL
from helpers import python, random_encoder_inputs

from trainer.data import batching, manifests, model_inputs, windows
from trainer.distributed import strategies
from trainer.encoders import classifier, freezing, fused_layers, native, recomputation, saved_models, window_pooling
from trainer.train import averages, one_pass_adamw, optimizers, steps

RATES = (0.0, 0.1)
BATCH = 5  # not a multiple of 2 or 4, so that replicas have padding rows
STEPS = 200
REPLICAS = (2, 4)


@dataclasses.dataclass
class Training:
    model: object
    sums: steps.TrainSums
    window: object
    batches: object
    averages: averages.WeightAverages


@functools.cache
def rebuilt(encoder: str):
    return native.rebuild_encoder(saved_models.load_saved_model(encoder))


FAMILIES = {
    "electra": dataclasses.replace(SMALL, embedding_width=16),
    "albert": dataclasses.replace(SMALL, family="albert", embedding_width=16, layers=3),
    "talking_heads": dataclasses.replace(SMALL, family="talking_heads"),
}
FAMILY_STEPS = 20


@functools.cache
def random_values(family: str) -> list[np.ndarray]:
    """The same in every process."""
    rng = np.random.default_rng(0)
    variables = native.build_encoder(FAMILIES[family]).trainable_variables
    return [rng.normal("gamma" in v.name, 0.05, v.shape).astype(np.float32) for v in variables]


def set_up_training(
    strategy,
    tiny,
    prepared,
    rate,
    examples=BATCH * 2 * STEPS,
    parts=1,
    layout=(24, "head"),
    pooling=None,
    weights=None,
    recompute=False,
    xla=False,
    fused=False,
    family=None,
    precision="float32",
) -> Training:
    """The tiny encoder with this dropout rate, ready to be trained on the reviews, in windows if `pooling` is given.

    `weights` is a function of a batch's rows to their weights. None: all are 1. `family` is a key of FAMILIES, of which
    an encoder takes the place of the tiny one.
    """
    replicas = strategy.num_replicas_in_sync
    architecture, values = (FAMILIES[family], random_values(family)) if family else rebuilt(f"{tiny}/encoder")
    architecture = dataclasses.replace(architecture, dropout=rate, attention_dropout=rate)
    with strategy.scope():
        encoder = classifier.build_native_encoder(architecture, values, precision)
        if fused:
            fused_layers.install_fused_layers(encoder, architecture)
        if recompute:
            recomputation.install_recomputation(encoder)
        built = classifier.build_classifier(encoder, 2, rate, seed=3)
        if pooling:
            built = window_pooling.build_window_classifier(built, pooling)
        optimizer = optimizers.build_adamw(1e-4, 2 * STEPS, 0.1, 0.01)
        optimizers.create_slots(optimizer, built.trainable_variables)
        sums = steps.create_train_sums()
        averaged = averages.create_averages(built, 0.99)
    manifest = manifests.read_manifest(str(prepared))
    stream = batching.train_batches(
        str(prepared), manifest, batching.ShuffleOrder(0, True, 1 << 18), BATCH, 0, examples
    )
    if weights:
        stream = (dataclasses.replace(batch, weights=weights(len(batch))) for batch in stream)
    seq_length, truncation, *divided = layout
    layout = model_inputs.BatchLayout(
        BATCH, seq_length, truncation, 8, replicas, parts, windows=divided[0] if divided else None
    )
    one_pass = fused and one_pass_adamw.suits_one_pass("adamw", strategy)
    update = one_pass_adamw.build_one_pass_update(optimizer, 1.0) if one_pass else None
    step = steps.build_train_step(
        built, optimizer, sums, 3, 1.0, parts, weight_averages=averaged, xla=xla, update=update
    )
    window = steps.build_inner_loop(strategy, step)
    batches = model_inputs.distribute_model_inputs(strategy, stream, manifest, layout)
    return Training(built, sums, window, batches, averaged)


def one_replica() -> tf.distribute.Strategy:
    return tf.distribute.OneDeviceStrategy("/cpu:0")


def values(training: Training) -> list[np.ndarray]:
    """Of the model's parameters, and then of their averages."""
    return [v.numpy() for v in [*training.model.trainable_variables, *training.averages.variables]]


def sums(training: Training) -> list[float]:
    return [float(v.numpy()) for v in (training.sums.weight, training.sums.loss, training.sums.correct)]


def assert_equal_values(one: list[np.ndarray], others: dict[str, list[np.ndarray]], tolerance: float = 1e-5) -> None:
    """No parameter or average is further than `tolerance` from that of `one`. `others` are values by name."""
    for name, other in others.items():
        largest = max(np.abs(a - b).max() for a, b in zip(one, other, strict=True))
        print(f"{name}: largest difference of a parameter {largest:.1e}")
        assert largest <= tolerance


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
    """The same with several replicas, in calls of 1, 2 and more steps."""
    folder = tmp_path_factory.mktemp("replicas")
    # This file is run as a script there, and imports the tests' helpers.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        outputs = {replicas: folder / f"{replicas}.npz" for replicas in REPLICAS}
        processes = [
            pool.submit(python, __file__, tiny, prepared, str(r), file, check=True, env=environment)
            for r, file in outputs.items()
        ]
    for process in processes:
        process.result()
    return {replicas: np.load(folder / f"{replicas}.npz") for replicas in REPLICAS}


@pytest.mark.parametrize("rate", RATES)
def test_training_changes_every_parameter(trained, rate):
    before, after, _, one = trained[rate]
    for variable, a, b in zip([*one.model.trainable_variables, *one.averages.variables], before, after, strict=True):
        assert (a != b).any(), variable.name
        assert np.isfinite(b).all(), variable.name


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("replicas", REPLICAS)
def test_several_replicas_give_the_result_of_one(trained, on_replicas, rate, replicas):
    _, after, totals, _ = trained[rate]
    others = [on_replicas[replicas][f"{rate}:{index}"] for index in range(len(after))]
    assert_equal_values(after, {f"{replicas} replicas, dropout {rate}, {STEPS} steps": others})
    assert totals[0] == STEPS * BATCH
    assert on_replicas[replicas][f"{rate}:sums"] == pytest.approx(totals, rel=1e-5)


@pytest.mark.parametrize("parts", [2, 3])
def test_micro_batches_give_the_result_of_one_batch(trained, tiny, prepared, parts):
    """With a short last micro-batch and dropout: losses are weighted, and masks depend on the global batch's row."""
    _, after, totals, _ = trained[0.1]
    one = set_up_training(one_replica(), tiny, prepared, 0.1, parts=parts)
    one.window(one.batches, tf.constant(STEPS))
    for value, expected in zip(values(one), after, strict=True):
        assert np.abs(value - expected).max() <= 1e-5
    assert sums(one) == pytest.approx(totals, rel=1e-5)


# --- Recomputed and fused layers, and steps compiled by XLA ------------------------------------------

KINDS = {
    "recomputed": {"recompute": True},
    "xla": {"xla": True},
    "both": {"recompute": True, "xla": True},
    "fused": {"fused": True},
    "fused and recomputed": {"fused": True, "recompute": True},
}
KINDS_ON_REPLICAS = ("recomputed", "both", "fused")
KIND_STEPS = 20


def train_kind(strategy, tiny, prepared, kind: str, parts: int = 1) -> Training:
    """Train some steps, with dropout, on batches of two widths."""
    training = set_up_training(strategy, tiny, prepared, 0.1, parts=parts, **KINDS.get(kind, {}))
    training.window(training.batches, tf.constant(KIND_STEPS))
    return training


@pytest.fixture(scope="module")
def plain_steps(tiny, prepared) -> Training:
    return train_kind(one_replica(), tiny, prepared, "plain")


@pytest.mark.parametrize("kind", KINDS)
def test_another_way_to_compute_a_step_gives_its_result(plain_steps, tiny, prepared, on_replicas, kind):
    """In one replica, with micro-batches, and on several replicas: also the masks of dropout are the same."""
    others = {
        "one replica": values(train_kind(one_replica(), tiny, prepared, kind)),
        "micro-batches": values(train_kind(one_replica(), tiny, prepared, kind, parts=3)),
    }
    if kind in KINDS_ON_REPLICAS:
        others["2 replicas"] = [on_replicas[2][f"{kind}:{i}"] for i in range(len(values(plain_steps)))]
    assert_equal_values(values(plain_steps), others, tolerance=1e-6)


# --- The other families -----------------------------------------------------------------------------


def train_family(strategy, tiny, prepared, family, parts=1, precision="float32") -> Training:
    training = set_up_training(strategy, tiny, prepared, 0.1, parts=parts, family=family, precision=precision)
    training.window(training.batches, tf.constant(FAMILY_STEPS))
    return training


@pytest.mark.parametrize("family", FAMILIES)
def test_the_division_of_a_batch_does_not_change_a_family(tiny, prepared, on_replicas, family):
    """Neither its masks nor its loss: on several replicas, and in micro-batches."""
    one = train_family(one_replica(), tiny, prepared, family)
    assert any((a != b).any() for a, b in zip(values(one), random_values(family), strict=False))
    others = {
        "2 replicas": [on_replicas[2][f"{family}:{i}"] for i in range(len(values(one)))],
        "micro-batches": values(train_family(one_replica(), tiny, prepared, family, parts=3)),
    }
    assert_equal_values(values(one), others)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_trains_in_bfloat16_and_repeats_itself(tiny, prepared, family):
    first, again = (train_family(one_replica(), tiny, prepared, family, precision="bfloat16") for _ in range(2))
    exact = train_family(one_replica(), tiny, prepared, family)
    assert sums(first) == sums(again)
    assert all(np.array_equal(a, b) for a, b in zip(values(first), values(again), strict=True))
    assert sums(first)[1] != sums(exact)[1]  # so it did compute in bfloat16
    assert sums(first)[1] == pytest.approx(sums(exact)[1], rel=0.02)


# --- Windows ----------------------------------------------------------------------------------------

WINDOWS_STEPS = 30


def train_windows(strategy, tiny, prepared, pooling, parts=1) -> Training:
    """Train on windows of 10 tokens, of which the texts have 1 to 4, with dropout."""
    layout = (12, windows.TRUNCATION, windows.plan_windows(12, 8, 4))
    training = set_up_training(strategy, tiny, prepared, 0.1, parts=parts, layout=layout, pooling=pooling)
    training.window(training.batches, tf.constant(WINDOWS_STEPS))
    return training


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_the_division_of_a_batch_does_not_change_its_windows(tiny, prepared, on_replicas, pooling):
    """Neither its masks nor its loss: on several replicas, and in micro-batches."""
    one = train_windows(one_replica(), tiny, prepared, pooling)
    assert sums(one)[0] == WINDOWS_STEPS * BATCH
    others = {
        "2 replicas": [on_replicas[2][f"{pooling}:{i}"] for i in range(len(values(one)))],
        "micro-batches": values(train_windows(one_replica(), tiny, prepared, pooling, parts=3)),
    }
    assert_equal_values(values(one), others)


def test_texts_of_one_window_are_trained_as_without_windows(tiny, prepared):
    """Bit for bit."""
    long = (64, windows.TRUNCATION, windows.plan_windows(64, None, 4))
    trainings = [
        set_up_training(one_replica(), tiny, prepared, 0.1, layout=(64, "head")),
        set_up_training(one_replica(), tiny, prepared, 0.1, layout=long, pooling="mean"),
    ]
    for training in trainings:
        training.window(training.batches, tf.constant(20))
    for a, b in zip(*map(values, trainings), strict=True):
        assert (a == b).all()
    assert sums(trainings[0]) == sums(trainings[1])


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


# --- Frozen parameters ------------------------------------------------------------------------------


@dataclasses.dataclass
class FrozenStep:
    before: dict[str, np.ndarray]  # By canonical name, as below.
    after: dict[str, np.ndarray]
    with_moments: set[str]
    operators: list[str]  # Their names in the step's graph.


def train_frozen(tiny, freeze, pooling="pooled", path="native", parts=1) -> FrozenStep:
    """One step of the tiny encoder with dropout, nothing clipped, at the full learning rate."""
    strategy = one_replica()
    with strategy.scope():
        if path == "hub":
            encoder = classifier.build_hub_encoder(saved_models.load_saved_model(f"{tiny}/encoder"))
        else:
            encoder = classifier.build_native_encoder(*rebuilt(f"{tiny}/encoder"), "float32", pooling)
        model = classifier.build_classifier(encoder, 2, 0.1, 3, pooling)
        trained_variables = freezing.choose_trained_variables(model.trainable_variables, freeze, pooling)
        optimizer = optimizers.build_adamw(1e-3, 10, 0.0, 0.01)
        optimizers.create_slots(optimizer, trained_variables)
        sums = steps.create_train_sums()
    step = steps.build_train_step(model, optimizer, sums, 3, 1e9, parts, trained_variables=trained_variables)
    run = tf.function(lambda batch: strategy.run(step, args=(batch,)))
    inputs = random_encoder_inputs(rows=4, seq_length=6, vocab_size=1024)
    batch = {name: tf.constant(value) for name, value in inputs.items()}
    batch |= {"label": tf.constant([0, 1, 1, 0]), "weight": tf.ones([4])}

    def by_name() -> dict[str, np.ndarray]:
        return {native.canonical_name(v.name): v.numpy() for v in model.trainable_variables}

    before = by_name()
    run(batch)
    slots = {native.canonical_name(v.name) for v in optimizer.variables()}
    with_moments = {name for name in before if f"{name}/m" in slots}
    graph = run.get_concrete_function(batch).graph
    return FrozenStep(before, by_name(), with_moments, [operator.name for operator in graph.get_operations()])


@pytest.fixture(scope="module")
def nothing_frozen(tiny):
    return train_frozen(tiny, "none")


FROZEN = {
    "embeddings": ("word_embeddings", "position_embedding", "type_embeddings", "embeddings"),
    "layers:1": ("word_embeddings", "position_embedding", "type_embeddings", "embeddings", "transformer/layer_0"),
    "encoder": ("word_embeddings", "position_embedding", "type_embeddings", "embeddings", "transformer", "pooler"),
}


@pytest.mark.parametrize("freeze", FROZEN)
@pytest.mark.parametrize(("path", "parts"), [("native", 1), ("native", 2), ("hub", 1)])
def test_frozen_parameters_keep_their_values_and_have_no_moments(tiny, freeze, path, parts):
    done = train_frozen(tiny, freeze, path=path, parts=parts)
    frozen = {name for name in done.before if name.startswith(FROZEN[freeze])}
    assert {name for name in done.before if (done.before[name] == done.after[name]).all()} == frozen
    assert done.with_moments == set(done.before) - frozen


@pytest.mark.parametrize("freeze", FROZEN)
def test_the_others_are_trained_as_if_nothing_were_frozen(tiny, nothing_frozen, freeze):
    """With the same masks, in the frozen layers too."""
    done = train_frozen(tiny, freeze)
    for name in done.with_moments:
        assert (done.after[name] == nothing_frozen.after[name]).all(), name


@pytest.mark.parametrize("freeze", FROZEN)
def test_no_gradient_is_computed_below_the_first_trained_layer(tiny, nothing_frozen, freeze):
    def backward(operators: list[str]) -> set[str]:
        parts = ("word_embeddings", "layer_0", "layer_1", "classifier")
        return {part for part in parts for name in operators if "gradient_tape" in name and f"/{part}/" in name}

    assert backward(nothing_frozen.operators) == {"word_embeddings", "layer_0", "layer_1", "classifier"}
    left = {"embeddings": {"layer_0", "layer_1"}, "layers:1": {"layer_1"}, "encoder": set()}[freeze]
    assert backward(train_frozen(tiny, freeze).operators) == {"classifier", *left}


@pytest.mark.parametrize("path", ["native", "hub"])
@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_without_the_pooler_all_but_it_is_trained(tiny, pooling, path):
    done = train_frozen(tiny, "none", pooling, path)
    unchanged = {name for name in done.before if (done.before[name] == done.after[name]).all()}
    assert unchanged == {"pooler_transform/kernel", "pooler_transform/bias"}


def main(tiny, prepared, replicas, output) -> None:
    strategy = strategies.build_strategy("mirrored", strategies.DeviceRequest(virtual_devices=int(replicas))).strategy
    results = {}
    for rate in RATES:
        several = set_up_training(strategy, tiny, prepared, rate)
        for count in (1, 2, STEPS - 3):
            several.window(several.batches, tf.constant(count))
        results |= {f"{rate}:{index}": value for index, value in enumerate(values(several))}
        results[f"{rate}:sums"] = sums(several)
    if replicas == "2":  # Each costs a trace for every replica: what 4 of them show, the rates show.
        others = {
            **{pooling: train_windows(strategy, tiny, prepared, pooling) for pooling in ("mean", "max")},
            **{kind: train_kind(strategy, tiny, prepared, kind) for kind in KINDS_ON_REPLICAS},
            **{family: train_family(strategy, tiny, prepared, family) for family in FAMILIES},
        }
        results |= {
            f"{name}:{index}": value for name, each in others.items() for index, value in enumerate(values(each))
        }
    np.savez(output, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
