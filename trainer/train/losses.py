"""The losses of examples. Shapes: B rows, C classes."""

import functools
from collections.abc import Callable

import tensorflow as tf

from trainer.data import tasks
from trainer.data.manifests import Manifest
from trainer.errors import Problem

ExampleLosses = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]  # (labels [B] or [B, C], logits float32 [B, C]) -> [B]


def find_loss_problems(manifest: Manifest, loss: str, label_smoothing: float) -> list[Problem]:
    """Why training.loss and training.label_smoothing do not suit the data set, or each other."""
    if manifest.kind != "classification":
        changed = {} if loss == "cross_entropy" else {"training.loss": loss}
        changed |= {"training.label_smoothing": str(label_smoothing)} if label_smoothing else {}
        required = f"be left out for {tasks.KIND_NAMES[manifest.kind]}"
        return [Problem(key, required, value) for key, value in changed.items()]
    if loss == "focal" and label_smoothing:
        return [Problem("training.label_smoothing", "be 0 with training.loss=focal", str(label_smoothing))]
    return []


def build_train_losses(loss: str, label_smoothing: float, focal_gamma: float) -> ExampleLosses:
    """The losses that training minimizes. Evaluation's are always those of `example_losses`."""
    if loss == "focal":
        return functools.partial(focal_losses, gamma=focal_gamma)
    if label_smoothing:
        return functools.partial(smoothed_losses, smoothing=label_smoothing)
    return example_losses


def example_losses(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """float32 [B]: cross-entropy of int32 labels [B], squared error of float32 ones [B]. logits: float32 [B, C].

    Of several labels, float32 [B, C] of 0 and 1, the mean of their binary cross-entropies: a sum would make the loss
    and its gradients grow with the number of labels, and optimizer.clip_norm another setting for each data set.
    """
    if labels.dtype.is_integer:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    if labels.shape.rank == 2:
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits), axis=1)
    return tf.square(logits[:, 0] - labels)


def smoothed_losses(labels: tf.Tensor, logits: tf.Tensor, smoothing: float) -> tf.Tensor:
    """float32 [B]: cross-entropy of labels of which the share `smoothing` is divided among all C classes.

    Szegedy et al., Rethinking the Inception Architecture, 2016, section 7.
    """
    classes = tf.shape(logits)[1]
    uniform = tf.cast(smoothing / tf.cast(classes, tf.float32), logits.dtype)
    targets = tf.one_hot(labels, classes, dtype=logits.dtype) * (1.0 - smoothing) + uniform
    return tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=logits)


def focal_losses(labels: tf.Tensor, logits: tf.Tensor, gamma: float) -> tf.Tensor:
    """float32 [B]: cross-entropy times (1 - p) ** gamma, where p is the probability of the label.

    Lin et al., Focal Loss for Dense Object Detection, 2017, equation 4. 1 - p is computed as the sum of the other
    classes' probabilities in logarithms, so that the gradient is finite where p rounds to 1.
    """
    is_label = tf.one_hot(labels, tf.shape(logits)[1], on_value=True, off_value=False, dtype=tf.bool)
    others = tf.where(is_label, tf.constant(logits.dtype.min, logits.dtype), logits)
    log_rest = tf.reduce_logsumexp(others, axis=1) - tf.reduce_logsumexp(logits, axis=1)
    return tf.exp(gamma * log_rest) * example_losses(labels, logits)
