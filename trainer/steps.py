"""A window of train steps; the evaluation step. Shapes: B rows of a replica's batch, C classes."""

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras

from trainer import dropout, native, optim

Batch = dict[str, tf.Tensor]


def losses(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """float32 [B]: cross-entropy of int32 labels, squared error of float32 ones. logits: float32 [B, C]."""
    if labels.dtype.is_integer:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    return tf.square(logits[:, 0] - labels)


@dataclasses.dataclass(frozen=True)
class Totals:
    """Sums over the examples since the last log line. They are in the checkpoint, so that a line covers
    the same steps in a run that was cut as in one that was not."""

    weight: tf.Variable
    loss: tf.Variable
    correct: tf.Variable
    bad_step: tf.Variable  # int64: the first step whose loss or gradients were not finite; 0 while all are

    def saved(self) -> dict[str, tf.Variable]:
        return {"weight": self.weight, "loss": self.loss, "correct": self.correct}


def totals() -> Totals:
    """Call it in the strategy's scope."""

    def zero() -> tf.Variable:
        return tf.Variable(
            0.0,
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.SUM,
        )

    first = tf.VariableAggregation.ONLY_FIRST_REPLICA
    return Totals(zero(), zero(), zero(), tf.Variable(0, dtype=tf.int64, trainable=False, aggregation=first))


def reset(sums: Totals) -> None:
    for variable in sums.saved().values():
        variable.assign(0.0)


def train_window(
    strategy: tf.distribute.Strategy,
    model: tf_keras.Model,
    optimizer: tf_keras.optimizers.Optimizer,
    sums: Totals,
    seed: int,
    clip_norm: float,
) -> Callable[[Any, tf.Tensor], None]:
    """A function (iterator, count) that trains `count` (int32 []) steps without leaving the device.

    The loss is sum(weight * loss) / sum(weight) over the global batch, whatever the number of
    replicas; gradients are summed over them, then clipped, once.
    """

    def step(batch: Batch) -> None:
        replica = tf.distribute.get_replica_context()
        labels, weights = batch["label"], batch["weight"]
        rows = tf.shape(weights, out_type=tf.int64)[0]
        key = dropout.Key(
            seed=tf.constant(seed, tf.int64),
            step=tf.cast(optimizer.iterations, tf.int64),
            first_row=tf.cast(replica.replica_id_in_sync_group, tf.int64) * rows,
        )
        weight = replica.all_reduce(tf.distribute.ReduceOp.SUM, tf.reduce_sum(weights))
        with tf.GradientTape() as tape:
            with dropout.using(key):
                logits = model({name: batch[name] for name in native.INPUT_NAMES}, training=True)
            each = losses(labels, logits)
            loss = tf.reduce_sum(weights * each) / weight
        variables = model.trainable_variables
        gradients = tape.gradient(loss, variables)
        # A Hub encoder may carry variables that its pooled output does not use.
        used = [(g, v) for g, v in zip(gradients, variables, strict=True) if g is not None]
        # The word embeddings' gradient as a matrix: a sparse one repeats rows, and its norm would be another.
        dense = [tf.convert_to_tensor(g) for g, _ in used]
        summed = replica.all_reduce(tf.distribute.ReduceOp.SUM, dense)
        clipped, norm = optim.clip(summed, clip_norm)
        optim.apply(optimizer, clipped, [v for _, v in used])

        sums.weight.assign_add(tf.reduce_sum(weights))
        sums.loss.assign_add(tf.reduce_sum(weights * each))
        if labels.dtype.is_integer:
            sums.correct.assign_add(
                tf.reduce_sum(weights * tf.cast(tf.equal(tf.argmax(logits, 1, labels.dtype), labels), tf.float32))
            )
        good = tf.math.is_finite(replica.all_reduce(tf.distribute.ReduceOp.SUM, loss)) & tf.math.is_finite(norm)
        first = tf.equal(sums.bad_step, 0) & ~good
        sums.bad_step.assign(tf.where(first, tf.cast(optimizer.iterations, tf.int64), sums.bad_step))

    @tf.function
    def window(iterator: Any, count: tf.Tensor) -> None:
        for _ in tf.range(count):
            strategy.run(step, args=(next(iterator),))

    return window


def evaluation_step(
    strategy: tf.distribute.Strategy, model: tf_keras.Model
) -> Callable[[Batch], tuple[tf.Tensor, tf.Tensor]]:
    """A function batch -> (logits float32 [rows, C], losses float32 [rows]) of the global batch's rows, in order."""

    def step(batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        logits = model({name: batch[name] for name in native.INPUT_NAMES}, training=False)
        return logits, losses(batch["label"], logits)

    @tf.function(reduce_retracing=True)
    def run(batch: Batch) -> Any:
        return strategy.run(step, args=(batch,))

    def gathered(batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        logits, each = run(batch)
        return strategy.gather(logits, axis=0), strategy.gather(each, axis=0)

    return gathered
