"""The train step and its inner loop, and the evaluation step. Shapes: B rows of a replica's batch, C classes."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras

from trainer.distributed import remote_hosts
from trainer.encoders import dropout, native
from trainer.train import averages, losses, optimizers

Batch = dict[str, tf.Tensor]


@dataclasses.dataclass(frozen=True)
class TrainSums:
    """Sums over the examples since the last log line, the same on every replica.

    They are in the checkpoint, so that a line covers the same steps in a run that was interrupted.
    """

    weight: tf.Variable
    loss: tf.Variable
    correct: tf.Variable
    bad_step: tf.Variable  # int64: the first step with a loss or gradient that is not finite, 0 if none.

    def saved(self) -> dict[str, tf.Variable]:
        return {"weight": self.weight, "loss": self.loss, "correct": self.correct}


def create_train_sums() -> TrainSums:
    """Sums of zero. Call it in the strategy's scope."""

    def zero(dtype: tf.DType) -> tf.Variable:
        # Not aggregated: each replica assigns its copy a sum over all replicas. Aggregated on read, a value would be
        # divided by the number of replicas when it is restored, which is not exact for 3.
        return tf.Variable(0, dtype=dtype, trainable=False)

    return TrainSums(zero(tf.float32), zero(tf.float32), zero(tf.float32), zero(tf.int64))


def reset_sums(sums: TrainSums) -> None:
    """Set the sums of the log line to zero."""
    for variable in sums.saved().values():
        variable.assign(0.0)


class GradientSums(NamedTuple):
    """Sums over the examples of a micro-batch; then of a replica's share; after the all-reduce, of the global batch."""

    loss: tf.Tensor  # float32 []: weight * loss
    correct: tf.Tensor  # float32 []: weight of the correct answers
    # Of the trained variables, by their number. A Hub encoder may have variables that its output does not use.
    gradients: dict[int, tf.Tensor]


def _build_share_sums(
    model: tf_keras.Model,
    trained_variables: Sequence[tf.Variable],
    seed: int,
    accumulation_steps: int,
    example_losses: losses.ExampleLosses,
    xla: bool,
) -> Callable[[Batch, tf.Tensor, tf.Tensor, tf.Tensor], GradientSums]:
    """What a replica computes by itself in a train step: the sums of its share, in micro-batches."""

    def micro_batch_sums(batch: Batch, index: tf.Tensor, key: dropout.DropoutKey, weight: tf.Tensor) -> GradientSums:
        """The sums of micro-batch number `index` of the share. `weight` is the global batch's."""
        if accumulation_steps > 1:
            batch = {
                name: tf.gather(tf.reshape(x, [accumulation_steps, -1, *tf.unstack(tf.shape(x)[1:])]), index)
                for name, x in batch.items()
            }
        labels, weights = batch["label"], batch["weight"]
        rows = count_encoder_rows(batch)
        key = dataclasses.replace(key, first_row=key.first_row + tf.cast(index, tf.int64) * rows)
        # The backward pass ends at the first layer with a watched variable.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(trained_variables)
            with dropout.use_key(key):
                logits = model({name: batch[name] for name in native.INPUT_NAMES}, training=True)
            total = tf.reduce_sum(weights * example_losses(labels, logits))
            loss = tf.math.divide_no_nan(total, weight)
        gradients = tape.gradient(loss, trained_variables)
        # The word embeddings' gradient as a matrix: a sparse one repeats rows, which would change its norm.
        dense = {n: tf.convert_to_tensor(gradient) for n, gradient in enumerate(gradients) if gradient is not None}
        return GradientSums(total, correct_weight(labels, logits, weights), dense)

    def share_sums(batch: Batch, step: tf.Tensor, first_row: tf.Tensor, weight: tf.Tensor) -> GradientSums:
        """The sums of a replica's share, whose first row is number `first_row` of the global batch."""
        key = dropout.DropoutKey(tf.constant(seed, tf.int64), step, first_row)
        share = micro_batch_sums(batch, tf.constant(0), key, weight)
        if accumulation_steps > 1:

            def add(index: tf.Tensor, so_far: GradientSums) -> tuple[tf.Tensor, GradientSums]:
                return index + 1, tf.nest.map_structure(tf.add, so_far, micro_batch_sums(batch, index, key, weight))

            _, share = tf.while_loop(lambda index, _: index < accumulation_steps, add, (tf.constant(1), share))
        return share

    return tf.function(share_sums, jit_compile=True, autograph=False) if xla else share_sums


def build_train_step(
    model: tf_keras.Model,
    optimizer: tf_keras.optimizers.Optimizer,
    sums: TrainSums,
    seed: int,
    update: optimizers.Update,
    accumulation_steps: int = 1,
    example_losses: losses.ExampleLosses = losses.example_losses,
    weight_averages: averages.WeightAverages | None = None,
    trained_variables: Sequence[tf.Variable] | None = None,
    xla: bool = False,
) -> Callable[[Batch], None]:
    """A function of a replica's share of a global batch, for `strategy.run`: one step of the optimizer.

    It changes `trained_variables`, by default all of the model's trainable ones, and computes no other gradients.

    The loss is sum(weight * loss) / sum(weight) over the global batch, for any number of replicas and any number of
    micro-batches (`accumulation_steps`, which divides B) that a replica computes its share in, one after another.
    Gradients are summed over micro-batches and replicas. `update` clips and applies the sum. A global batch whose
    weights are all 0 has a loss and gradients of 0. With `xla`, what a replica computes by itself is one program for
    each width of a batch: everything but the all-reduces and `update`.
    """
    trained = model.trainable_variables if trained_variables is None else list(trained_variables)
    share_sums = _build_share_sums(model, trained, seed, accumulation_steps, example_losses, xla)

    def step(batch: Batch) -> None:
        replica = tf.distribute.get_replica_context()
        weight = replica.all_reduce(tf.distribute.ReduceOp.SUM, tf.reduce_sum(batch["weight"]))
        first_row = tf.cast(replica.replica_id_in_sync_group, tf.int64) * count_encoder_rows(batch)
        share = share_sums(batch, tf.cast(optimizer.iterations, tf.int64), first_row, weight)
        total = replica.all_reduce(tf.distribute.ReduceOp.SUM, share)
        norm = update(list(total.gradients.values()), [trained[n] for n in total.gradients])
        if weight_averages:
            averages.update_averages(weight_averages, model.trainable_variables, optimizer.iterations)

        sums.weight.assign_add(weight)
        sums.loss.assign_add(total.loss)
        sums.correct.assign_add(total.correct)
        bad = ~(tf.math.is_finite(total.loss) & tf.math.is_finite(norm)) & tf.equal(sums.bad_step, 0)
        sums.bad_step.assign(tf.where(bad, tf.cast(optimizer.iterations, tf.int64), sums.bad_step))

    return step


def count_encoder_rows(batch: Batch) -> tf.Tensor:
    """int64 []: the sequences that the encoder is called with: the rows of the batch, times their windows if any."""
    return tf.reduce_prod(tf.shape(batch["input_word_ids"], out_type=tf.int64)[:-1])


def correct_weight(labels: tf.Tensor, logits: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """float32 []: the summed weight of the rows whose label has the highest logit. 0 for numbers and several labels."""
    if not labels.dtype.is_integer:
        return tf.constant(0.0)
    return tf.reduce_sum(weights * tf.cast(tf.equal(tf.argmax(logits, 1, labels.dtype), labels), tf.float32))


class InputUse(NamedTuple):
    """What the steps of an inner loop were given, over this process's replicas, and how long they waited for it."""

    waited_s: tf.Tensor  # float64 []: seconds from asking for a batch to having it.
    positions: tf.Tensor  # int64 []: of the encoder's inputs, padding included.
    tokens: tf.Tensor  # int64 []: those that are no padding, special tokens included.
    token_pairs: tf.Tensor  # int64 []: what attention compares: the square of each sequence's tokens.


def _next_batch(strategy: tf.distribute.Strategy, iterator: Any) -> tuple[Any, InputUse]:
    """The next batch of an iterator of distributed batches, inside a tf.function."""
    asked = tf.timestamp()
    with tf.control_dependencies([asked]):
        batch = next(iterator)
    masks = strategy.experimental_local_results(batch["input_mask"])
    with tf.control_dependencies(masks):
        waited_s = tf.timestamp() - asked
    lengths = [tf.cast(tf.math.count_nonzero(mask, axis=-1), tf.int64) for mask in masks]
    return batch, InputUse(
        waited_s,
        positions=tf.add_n([tf.size(mask, out_type=tf.int64) for mask in masks]),
        tokens=tf.add_n([tf.reduce_sum(each) for each in lengths]),
        token_pairs=tf.add_n([tf.reduce_sum(each * each) for each in lengths]),
    )


def _run_on_replicas(
    strategy: tf.distribute.Strategy, step: Callable[[Batch], Any], batch: Any, widths: Sequence[int]
) -> tuple[Any, ...]:
    """Run `step` on a distributed batch, inside a tf.function. Returns the results of this process's replicas.

    With several `widths`, ascending, `step` is traced once for each, as a part of the batch's static shape, and the
    batch's own is chosen when it runs: a TPU's programs have static shapes.
    """
    if len(widths) < 2:
        return strategy.experimental_local_results(strategy.run(step, args=(batch,)))

    def run(width: int) -> tuple[Any, ...]:
        def set_width(x: tf.Tensor) -> tf.Tensor:
            with tf.device(x.device):  # The tensor stays on the host of its replica.
                return tf.ensure_shape(x, [*x.shape[:-1], width])

        # Outside the step: the shapes of a TPU's program are those of what it is called with.
        inputs = {name: batch[name] for name in native.INPUT_NAMES}
        inputs = tf.nest.map_structure(set_width, inputs, expand_composites=True)
        return _run_on_replicas(strategy, step, batch | inputs, [width])

    mask = strategy.experimental_local_results(batch["input_mask"])[0]
    index = tf.searchsorted(list(widths), tf.shape(mask)[-1:])[0]
    results: tuple[Any, ...] = tf.switch_case(index, [functools.partial(run, width) for width in widths])
    return results


# (an iterator of distributed batches, the number of steps: int32 []) -> what they were given.
InnerLoop = Callable[[Any, tf.Tensor], InputUse]


def build_inner_loop(
    strategy: tf.distribute.Strategy, step: Callable[[Batch], None], widths: Sequence[int] = ()
) -> InnerLoop:
    """A function that runs some train steps without leaving the device.

    `widths` are all of those that batches may have, ascending, if `step` has to know a batch's when it is traced.
    """
    device = remote_hosts.step_device(strategy)

    # Nothing here needs AutoGraph, which would convert the code of all layers: a second of every start.
    @tf.function(autograph=False)
    def inner_loop(iterator: Any, count: tf.Tensor) -> InputUse:
        def run_step(done: tf.Tensor, so_far: InputUse) -> tuple[tf.Tensor, InputUse]:
            batch, use = _next_batch(strategy, iterator)
            _run_on_replicas(strategy, step, batch, widths)
            return done + 1, tf.nest.map_structure(tf.add, so_far, use)

        zero = tf.constant(0, tf.int64)
        nothing = InputUse(tf.constant(0, tf.float64), zero, zero, zero)
        use: InputUse = tf.while_loop(lambda done, _: done < count, run_step, (tf.constant(0), nothing))[1]
        return use

    def run_on_hosts(iterator: Any, count: tf.Tensor) -> InputUse:
        with tf.device(device):
            use: InputUse = inner_loop(iterator, count)
            return use

    return run_on_hosts if device else inner_loop


def build_replica_eval_step(model: tf_keras.Model, *, xla: bool = False) -> Callable[[Batch], tf.Tensor]:
    """A function of a replica's share of a batch, for `strategy.run`.

    It returns float32 [rows, C + 1]: the logits and the loss of every row of the global batch, in order. With `xla`,
    they are computed by one program for each width of a batch.
    """

    def score(batch: Batch) -> tf.Tensor:
        logits = model({name: batch[name] for name in native.INPUT_NAMES}, training=False)
        return tf.concat([logits, losses.example_losses(batch["label"], logits)[:, tf.newaxis]], axis=1)

    computed = tf.function(score, jit_compile=True, autograph=False) if xla else score

    def step(batch: Batch) -> tf.Tensor:
        return tf.distribute.get_replica_context().all_gather(computed(batch), axis=0)

    return step


# An iterator of distributed batches -> (logits float32 [rows, C], losses float32 [rows]) of the next one, in order.
EvalStep = Callable[[Any], tuple[np.ndarray, np.ndarray]]


def build_eval_step(
    strategy: tf.distribute.Strategy, step: Callable[[Batch], tf.Tensor], widths: Sequence[int] = ()
) -> EvalStep:
    """The evaluation of a global batch. It is taken from the iterator inside, so that one trace is of all shapes.

    `widths` are those of build_inner_loop.
    """
    device = remote_hosts.step_device(strategy)

    @tf.function(autograph=False)
    def run(batches: Any) -> Any:
        return _run_on_replicas(strategy, step, next(batches), widths)

    def scored(batches: Any) -> tuple[np.ndarray, np.ndarray]:
        with tf.device(device):
            values = run(batches)[0].numpy()
        return values[:, :-1], values[:, -1]

    return scored
