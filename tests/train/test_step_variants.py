"""Steps that are computed in another way, of another family of encoders, or on windows of texts.

Each is divided into micro-batches and over the two replicas of another process: the result is that of one replica.
"""

import functools
import sys

import numpy as np
import pytest
import tensorflow as tf
from helpers import long_but_for
from step_training import (
    BATCH,
    FAMILIES,
    Training,
    assert_equal_values,
    load_values,
    one_replica,
    random_values,
    run_script,
    save_values,
    set_up_training,
    several_replicas,
    sums,
    values,
)

from trainer.data import windows
from trainer.train import one_pass_adamw

KINDS = {
    "recomputed": {"recompute": True},
    "xla": {"xla": True},
    "both": {"recompute": True, "xla": True},
    "fused": {"fused": True},
    "fused and recomputed": {"fused": True, "recompute": True},
    "by width": {"widths": (16, 24)},
}
QUICK_KINDS = ("xla", "by width")  # The others are long.
KINDS_ON_REPLICAS = ("recomputed", "both", "fused", "by width")
POOLINGS = ("mean", "max")
KIND_STEPS = 20


def train_kind(strategy, tiny, prepared, kind: str, parts: int = 1) -> Training:
    """Train some steps, with dropout, on batches of two widths."""
    training = set_up_training(strategy, tiny, prepared, 0.1, parts=parts, **KINDS.get(kind, {}))
    training.window(training.batches, tf.constant(KIND_STEPS))
    return training


@pytest.fixture(scope="module")
def on_two_replicas(tiny, prepared, tmp_path_factory):
    """A function of a training's name that returns its values. The quick ones and the long ones each have a process."""

    @functools.cache
    def train(quick: bool) -> np.lib.npyio.NpzFile:
        output = tmp_path_factory.mktemp("replicas") / "values.npz"
        names = (*KINDS_ON_REPLICAS, *POOLINGS, *FAMILIES)
        run_script(__file__, tiny, prepared, output, *(name for name in names if (name in QUICK_KINDS) == quick))
        return np.load(output)

    return lambda name: load_values(train(name in QUICK_KINDS), name)[0]


@pytest.fixture(scope="module")
def plain_steps(tiny, prepared) -> Training:
    return train_kind(one_replica(), tiny, prepared, "plain")


@pytest.mark.parametrize("kind", long_but_for(QUICK_KINDS, KINDS))
def test_another_way_to_compute_a_step_gives_its_result(plain_steps, tiny, prepared, request, monkeypatch, kind):
    """In one replica, with micro-batches, and on several replicas: also the masks of dropout are the same."""
    monkeypatch.setattr(one_pass_adamw, "MIN_ELEMENTS", 2000)  # Some variables of the tiny encoder have more.
    others = {
        "one replica": values(train_kind(one_replica(), tiny, prepared, kind)),
        "micro-batches": values(train_kind(one_replica(), tiny, prepared, kind, parts=3)),
    }
    if kind in KINDS_ON_REPLICAS:
        others["2 replicas"] = request.getfixturevalue("on_two_replicas")(kind)
    assert_equal_values(values(plain_steps), others, tolerance=1e-6)


# --- The other families -----------------------------------------------------------------------------


FAMILY_STEPS = 20


def train_family(strategy, tiny, prepared, family, parts=1, precision="float32") -> Training:
    training = set_up_training(strategy, tiny, prepared, 0.1, parts=parts, family=family, precision=precision)
    training.window(training.batches, tf.constant(FAMILY_STEPS))
    return training


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_the_division_of_a_batch_does_not_change_a_family(tiny, prepared, on_two_replicas, family):
    """Neither its masks nor its loss: on several replicas, and in micro-batches."""
    one = train_family(one_replica(), tiny, prepared, family)
    assert any((a != b).any() for a, b in zip(values(one), random_values(family), strict=False))
    others = {
        "2 replicas": on_two_replicas(family),
        "micro-batches": values(train_family(one_replica(), tiny, prepared, family, parts=3)),
    }
    assert_equal_values(values(one), others)


@pytest.mark.parametrize("family", long_but_for(["albert"], FAMILIES))
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


@pytest.mark.long
@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_division_of_a_batch_does_not_change_its_windows(tiny, prepared, on_two_replicas, pooling):
    """Neither its masks nor its loss: on several replicas, and in micro-batches."""
    one = train_windows(one_replica(), tiny, prepared, pooling)
    assert sums(one)[0] == WINDOWS_STEPS * BATCH
    others = {
        "2 replicas": on_two_replicas(pooling),
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


def main(tiny, prepared, output, *names) -> None:
    strategy = several_replicas(2)
    trainings = {}
    for name in names:
        train = train_windows if name in POOLINGS else train_family if name in FAMILIES else train_kind
        trainings[name] = train(strategy, tiny, prepared, name)
    save_values(output, trainings)


if __name__ == "__main__":
    main(*sys.argv[1:])
