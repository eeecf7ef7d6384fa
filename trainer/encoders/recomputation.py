"""Encoder layers whose activations are computed again in the backward pass instead of kept (Chen et al. 2016).

Of each layer only its input is kept. That costs one more forward pass of the layer in every step.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras
from official.nlp.modeling import layers
from tf_keras.src.engine import base_layer_utils

from trainer.encoders import dropout

# The transformer layers of every native family. ALBERT calls one block once for each of its layers.
BLOCKS = (layers.TransformerEncoderBlock, layers.TransformerScaffold)


def install_recomputation(encoder: tf_keras.layers.Layer) -> None:
    """Make every transformer layer in `encoder` compute its activations again where a gradient needs them.

    Gradients and dropout masks stay the same. It has effect from the encoder's next call with training=True on, and
    needs a tf.function: eagerly, everything is kept.
    """
    for layer in encoder._flatten_layers():
        if isinstance(layer, BLOCKS):
            layer.call = _recomputed_call(layer)


def _recomputed_call(layer: tf_keras.layers.Layer) -> Callable[..., tf.Tensor]:
    # tf.recompute_grad is not used: the layers inside would not see `training` again, nor dropout its key.
    layer_call = layer.call

    @tf.autograph.experimental.do_not_convert
    def call(inputs: list[tf.Tensor], *arguments: Any, **options: Any) -> tf.Tensor:
        """The layer's output for [x [B, S, H], attention mask [B, S, S]], both of any float dtype."""
        context = base_layer_utils.call_context()
        if not context.training:
            return layer_call(inputs, *arguments, **options)
        context_arguments, key = context.call_context_args, dropout.active_key()
        attention_mask = inputs[1]

        @tf.custom_gradient
        def forward(x: tf.Tensor) -> tuple[tf.Tensor, Callable]:
            def backward(gradient: tf.Tensor, variables: tuple[tf.Variable, ...] = ()) -> Any:
                again, mask_again = (_computed_after(gradient, tensor) for tensor in (x, attention_mask))
                with (
                    tf.GradientTape() as tape,
                    context.enter(layer, inputs, context.build_graph, context_arguments),
                    dropout.use_key(dataclasses.replace(key, step=_computed_after(gradient, key.step))),
                ):
                    tape.watch(again)
                    output = layer_call([again, mask_again], *arguments, **options)
                of_input, *of_variables = tape.gradient(output, [again, *variables], gradient)
                return (of_input, of_variables) if variables else of_input

            return layer_call([x, attention_mask], *arguments, **options), backward

        return forward(inputs[0])

    return call


def _computed_after(gradient: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """`x`, for computations that must not start before `gradient` is there, and must not be merged with earlier ones.

    XLA ignores control dependencies, so it depends on a value of the gradient: 0 is added unless that is NaN.
    """
    is_nan = tf.math.is_nan(tf.reshape(gradient, [-1])[0])
    return x + tf.cast(is_nan, x.dtype)
