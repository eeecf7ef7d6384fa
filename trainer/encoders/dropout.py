"""Dropout whose masks depend only on (seed, step, layer, row of the global batch).

A resumed run therefore needs no generator's state, and an example's mask does not depend on how the batch is divided
among replicas. On a CPU it is also two to three times as fast as tf.nn.dropout: 9 ms instead of 19 ms for the attention
of 32 texts of 128 tokens, in bfloat16 9 ms instead of 32 ms. Drawing random bits is most of the cost, and it draws 16
bits for each value instead of 32.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
import tf_keras

PHILOX_ALGORITHM = 1  # tf.random.Algorithm.PHILOX as the number that the raw operator requires
MAX_LAYERS = 1 << 16  # Dropout layers in a model, each counted once for every depth that it is called at.
MAX_LAYERS_AT_DEPTH = 1 << 8  # Of them, in a model with a block that is called at several depths.


@dataclasses.dataclass(frozen=True)
class DropoutKey:
    """What the masks of one step depend on besides the layer. Tensors are int64 []."""

    seed: tf.Tensor
    step: tf.Tensor
    first_row: tf.Tensor  # Index, in the global batch, of the first row that the model is called with.
    depth: int = 0  # Which call of a block that several layers share.


_active_keys: list[DropoutKey] = []


@contextlib.contextmanager
def use_key(key: DropoutKey) -> Iterator[None]:
    """Dropout layers that are called with training=True inside this block compute their masks from `key`."""
    _active_keys.append(key)
    try:
        yield
    finally:
        _active_keys.pop()


def active_key() -> DropoutKey:
    """The key of the innermost block of use_key."""
    assert _active_keys, "a model was called with training=True outside dropout.use_key(key)"
    return _active_keys[-1]


@contextlib.contextmanager
def use_depth(depth: int) -> Iterator[None]:
    """Dropout layers that are called inside this block have masks that they have at no other depth."""
    if not _active_keys:  # Nothing is dropped.
        yield
        return
    with use_key(dataclasses.replace(_active_keys[-1], depth=depth)):
        yield


def seeded_dropout(x: tf.Tensor, rate: float, key: DropoutKey, layer: int) -> tf.Tensor:
    """Dropout of `x` [rows, ...], of any float dtype: a share `rate` becomes 0, the rest is divided by 1 - rate."""
    return x * scale_kept(draw_bits(tf.shape(x, out_type=tf.int64), key, layer), rate, x.dtype)


@dataclasses.dataclass(frozen=True)
class DropoutBits:
    """The random bits that decide which values a dropout layer keeps."""

    bits: tf.Tensor  # Unsigned integers, of the shape of the values.
    rate: float  # The share of values that becomes 0.


def scale_kept(bits: tf.Tensor, rate: float, dtype: tf.DType) -> tf.Tensor:
    """What dropout multiplies values by: 0 for a share `rate` of the bits, 1 / (1 - rate) for the others."""
    kept = bits >= tf.constant(round(rate * (bits.dtype.max + 1)), bits.dtype)
    return tf.cast(kept, dtype) * (1.0 / (1.0 - rate))


def draw_bits(shape: tf.Tensor, key: DropoutKey, layer: int) -> tf.Tensor:
    """Random unsigned integers of `shape`, int64 [rank], whose first axis is rows."""
    return _bit_generator()(shape, key, key.depth * MAX_LAYERS_AT_DEPTH + layer)


def _bit_generator() -> Callable[[tf.Tensor, DropoutKey, int], tf.Tensor]:
    """The function that draws random bits for each value. A TPU has another one, so its masks are different."""
    return _threefry_bits if isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy) else _philox_bits


def _philox_bits(shape: tf.Tensor, key: DropoutKey, layer: int) -> tf.Tensor:
    """uint16 of `shape`, so that rates are multiples of 2^-16.

    Philox turns a counter of 128 bits into 128 random bits, which serve eight values. The counter's low half is the row
    of the global batch times the blocks of a row, so that a row's bits do not depend on the replica that computes them.
    Its high half holds the step and the layer.
    """
    values_per_row = tf.reduce_prod(shape[1:])
    blocks_per_row = -(-values_per_row // 8)
    words = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=tf.stack([shape[0], blocks_per_row * 4]),
        key=tf.cast(key.seed, tf.uint64)[tf.newaxis],
        counter=tf.cast(tf.stack([key.first_row * blocks_per_row, key.step * MAX_LAYERS + layer]), tf.uint64),
        alg=PHILOX_ALGORITHM,
        dtype=tf.uint32,
    )
    bits = tf.reshape(tf.bitcast(words, tf.uint16), tf.stack([shape[0], blocks_per_row * 8]))[:, :values_per_row]
    return tf.reshape(bits, shape)


def _threefry_bits(shape: tf.Tensor, key: DropoutKey, layer: int) -> tf.Tensor:
    """uint32 of `shape`: a hash of (row, position in the row), which each value computes by itself.

    A TPU stores Philox's words in tiles of which 4 of 128 places are used: 50 times the memory and the memory traffic
    of the values. These bits are computed where they are used and need no memory.
    """
    shape = tf.cast(shape, tf.int32)
    ones = tf.ones_like(shape)
    row = tf.range(shape[0]) + tf.cast(key.first_row, tf.int32)
    row = tf.reshape(row, tf.concat([shape[:1], ones[1:]], 0))
    position = tf.reshape(tf.range(tf.reduce_prod(shape[1:])), tf.concat([ones[:1], shape[1:]], 0))
    layer_key = _threefry(_halves(key.seed), _halves(key.step * MAX_LAYERS + layer))
    return _threefry(layer_key, (tf.cast(row, tf.uint32), tf.cast(position, tf.uint32)))[0]


def _halves(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The low and the high 32 bits of an int64, each as uint32."""
    return tf.cast(x & 0xFFFFFFFF, tf.uint32), tf.cast(tf.bitwise.right_shift(x, tf.constant(32, tf.int64)), tf.uint32)


def _threefry(key: tuple[tf.Tensor, tf.Tensor], counter: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Threefry-2x32 with 20 rounds. Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (2011)"""
    keys = [*key, key[0] ^ key[1] ^ tf.constant(0x1BD11BDA, tf.uint32)]
    a, b = counter[0] + keys[0], counter[1] + keys[1]
    for group in range(5):
        for rotation in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            a += b
            left, right = (tf.constant(bits, tf.uint32) for bits in (rotation, 32 - rotation))
            b = a ^ (tf.bitwise.left_shift(b, left) | tf.bitwise.right_shift(b, right))
        a += keys[(group + 1) % 3]
        b += keys[(group + 2) % 3] + tf.constant(group + 1, tf.uint32)
    return a, b


@dataclasses.dataclass(frozen=True)
class LayerGenerator:
    """Replaces the random generator of one Keras dropout layer. `layer` is the layer's number in its model."""

    layer: int

    def dropout(self, x: tf.Tensor, rate: float, noise_shape: Any = None) -> tf.Tensor:
        assert noise_shape is None
        return seeded_dropout(x, rate, active_key(), self.layer)

    def draw(self, shape: tf.Tensor, rate: float) -> DropoutBits:
        """What `dropout` would draw for values of `shape`, int64 [rank]."""
        return DropoutBits(draw_bits(shape, active_key(), self.layer), rate)


def install_seeded_dropout(model: tf_keras.layers.Layer, first_number: int = 0) -> None:
    """Make every Dropout layer in `model` compute its masks from the active key and its own number."""
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, tf_keras.layers.Dropout)]
    for number, layer in enumerate(layers, first_number):
        layer._random_generator = LayerGenerator(number)
