"""An exponential moving average of the weights, which is evaluated and exported in their place."""

import dataclasses

import tensorflow as tf
import tf_keras


@dataclasses.dataclass(frozen=True)
class WeightAverages:
    """The averages of a model's trainable variables, the same on every replica. They are in the checkpoint."""

    decay: float  # The share that an average keeps of itself in a step.
    variables: list[tf.Variable]  # In the order of the model's.


def create_averages(model: tf_keras.Model, decay: float) -> WeightAverages:
    """Averages that start from the model's weights. Call it in the strategy's scope."""
    # Not aggregated, as the sums of a log line: each replica assigns its copy the same value.
    return WeightAverages(decay, [tf.Variable(v.read_value(), trainable=False) for v in model.trainable_variables])


def update_averages(averages: WeightAverages, variables: list[tf.Variable], steps: tf.Tensor) -> None:
    """Move each average towards its variable, after `steps` (int64 []) steps of training.

    The decay of an early step is (1 + steps) / (10 + steps) at most, so that the average follows the weights away from
    those that they started with. Source: num_updates of tf.train.ExponentialMovingAverage.
    """
    count = tf.cast(steps, tf.float32)
    share = 1.0 - tf.minimum(averages.decay, (1.0 + count) / (10.0 + count))
    for average, variable in zip(averages.variables, variables, strict=True):
        average.assign_sub(share * (average - variable))


def copy_to_model(averages: WeightAverages, model: tf_keras.Model) -> None:
    """Set the model's weights to the averages."""
    for average, variable in zip(averages.variables, model.trainable_variables, strict=True):
        variable.assign(average)


def copy_from_model(averages: WeightAverages, model: tf_keras.Model) -> None:
    """Set the averages to the model's weights."""
    for average, variable in zip(averages.variables, model.trainable_variables, strict=True):
        average.assign(variable)
