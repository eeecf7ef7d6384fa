"""The logits of a text from those of its windows. Shapes: B texts, W windows, S tokens of a sequence, C classes."""

import tensorflow as tf
import tf_keras

from trainer.encoders import native


def pool_logits(logits: tf.Tensor, present: tf.Tensor, pooling: str) -> tf.Tensor:
    """The mean or the maximum ("mean", "max") of each class over a text's windows: float32 [B, C].

    `logits`: float32 [B, W, C]; `present`: bool [B, W], which windows the text has, at least one. The logits of others
    have no effect, and no gradient.
    """
    present = tf.expand_dims(present, 2)  # Not tf.newaxis, which LiteRT's converter does not take of booleans.
    if pooling == "max":
        return tf.reduce_max(tf.where(present, logits, logits.dtype.min), axis=1)
    total = tf.reduce_sum(tf.where(present, logits, tf.zeros_like(logits)), axis=1)
    return total / tf.reduce_sum(tf.cast(present, logits.dtype), axis=1)


@tf.autograph.experimental.do_not_convert  # As in native.build_encoder.
def build_window_classifier(model: tf_keras.Model, pooling: str) -> tf_keras.Model:
    """A model from {input_word_ids, input_mask, input_type_ids}: int32 [B, W, S] to pooled logits: float32 [B, C].

    `model` maps sequences, int32 [B * W, S], to logits, and keeps the variables. A window whose input_mask is 0
    everywhere is padding.
    """
    inputs = {name: tf_keras.Input([None, None], dtype=tf.int32, name=name) for name in native.INPUT_NAMES}
    present = inputs["input_mask"][:, :, 0] > 0
    shape = tf.shape(inputs["input_mask"])
    sequences = {name: tf.reshape(value, [-1, shape[2]]) for name, value in inputs.items()}
    # Attention over no token at all is not defined: in a window of padding the first one takes part, as in any other.
    # Not tf.one_hot, whose depth would have to be constant for LiteRT and ONNX.
    mask = sequences["input_mask"]
    sequences["input_mask"] = tf.concat([tf.ones_like(mask[:, :1]), mask[:, 1:]], axis=1)
    logits = model(sequences)
    logits = tf.reshape(logits, [-1, shape[1], logits.shape[-1]])
    return tf_keras.Model(inputs, pool_logits(logits, present, pooling))


def pool_ragged_windows(
    model: tf_keras.Model, inputs: dict[str, tf.Tensor], counts: tf.Tensor, pooling: str
) -> tf.Tensor:
    """The logits, float32 [B, C], of texts that have `counts` windows, int32 [B], without computing any padding.

    `model` is what build_window_classifier returns; `inputs` has the windows of all texts, int32 [N, S]. It is for
    batches of very different lengths, as an export gets them.
    """
    each = model({name: value[:, tf.newaxis] for name, value in inputs.items()}, training=False)
    logits = tf.RaggedTensor.from_row_lengths(each, counts).to_tensor()
    return pool_logits(logits, tf.sequence_mask(counts, tf.shape(logits)[1]), pooling)
