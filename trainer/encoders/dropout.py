"""Dropout whose masks are a function of (seed, step, layer, row of the global batch) and nothing else.

So a resumed run needs no generator's state from its checkpoint, and an example's mask does not
depend on how the batch is split over replicas. It is also twice as fast on a CPU as tf.nn.dropout
(9 against 19 ms for the attention of 32 texts of 128 tokens; 9 against 32 ms in bfloat16): it draws
16 bits a value, not 32, and they are what dropout costs.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
import tf_keras

PHILOX = 1  # tf.random.Algorithm.PHILOX, as the raw op takes it
MAX_LAYERS = 1 << 16


@dataclasses.dataclass(frozen=True)
class DropoutKey:
    """What the masks of one step depend on, each int64 []."""

    seed: tf.Tensor
    step: tf.Tensor
    first_row: tf.Tensor  # the row of the global batch that is this replica's first


_active: list[DropoutKey] = []


@contextlib.contextmanager
def use_key(key: DropoutKey) -> Iterator[None]:
    """Layers called with training=True inside this block take their masks from `key`."""
    _active.append(key)
    try:
        yield
    finally:
        _active.pop()


def seeded_dropout(x: tf.Tensor, rate: float, key: DropoutKey, layer: int) -> tf.Tensor:
    """`x` [rows, ...] with a share `rate` of its values set to 0 and the others scaled up to keep the mean."""
    bits = _generator()(x, key, layer)
    kept = bits >= tf.constant(round(rate * (bits.dtype.max + 1)), bits.dtype)
    return x * (tf.cast(kept, x.dtype) * (1.0 / (1.0 - rate)))


def _generator() -> Callable[[tf.Tensor, DropoutKey, int], tf.Tensor]:
    """What gives each value its bits: on a TPU another than elsewhere, so the masks differ there."""
    return _threefry_bits if isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy) else _philox_bits


def _philox_bits(x: tf.Tensor, key: DropoutKey, layer: int) -> tf.Tensor:
    """uint16 of x's shape. Philox is a counter: a row's bits start at counter (row * ticks a row, step and layer),
    wherever the row is computed. A tick gives 128 bits, 16 for each value (so rates are multiples of 2^-16).
    """
    shape = tf.shape(x, out_type=tf.int64)
    size = tf.reduce_prod(shape[1:])
    ticks = -(-size // 8)
    words = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=tf.stack([shape[0], ticks * 4]),
        key=tf.cast(key.seed, tf.uint64)[tf.newaxis],
        counter=tf.cast(tf.stack([key.first_row * ticks, key.step * MAX_LAYERS + layer]), tf.uint64),
        alg=PHILOX,
        dtype=tf.uint32,
    )
    bits = tf.reshape(tf.bitcast(words, tf.uint16), tf.stack([shape[0], ticks * 8]))[:, :size]
    return tf.reshape(bits, shape)


def _threefry_bits(x: tf.Tensor, key: DropoutKey, layer: int) -> tf.Tensor:
    """uint32 of x's shape: a hash of (row, place in the row), which each value computes for itself.

    A TPU lays Philox's words out in tiles, 4 of 128 places used: 50 times the memory traffic of `x`, and of the
    memory. This needs none: it is computed where it is used.
    """
    shape = tf.shape(x)
    ones = tf.ones_like(shape)
    row = tf.range(shape[0]) + tf.cast(key.first_row, tf.int32)
    row = tf.reshape(row, tf.concat([shape[:1], ones[1:]], 0))
    place = tf.reshape(tf.range(tf.reduce_prod(shape[1:])), tf.concat([ones[:1], shape[1:]], 0))
    layer_key = _threefry(_halves(key.seed), _halves(key.step * MAX_LAYERS + layer))
    return _threefry(layer_key, (tf.cast(row, tf.uint32), tf.cast(place, tf.uint32)))[0]


def _halves(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The low and the high 32 bits of an int64."""
    return tf.cast(x & 0xFFFFFFFF, tf.uint32), tf.cast(tf.bitwise.right_shift(x, tf.constant(32, tf.int64)), tf.uint32)


def _threefry(key: tuple[tf.Tensor, tf.Tensor], counter: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Threefry-2x32, 20 rounds: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (2011)."""
    keys = [*key, key[0] ^ key[1] ^ tf.constant(0x1BD11BDA, tf.uint32)]
    a, b = counter[0] + keys[0], counter[1] + keys[1]
    for group in range(5):
        for turn in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            a += b
            left, right = (tf.constant(bits, tf.uint32) for bits in (turn, 32 - turn))
            b = a ^ (tf.bitwise.left_shift(b, left) | tf.bitwise.right_shift(b, right))
        a += keys[(group + 1) % 3]
        b += keys[(group + 2) % 3] + tf.constant(group + 1, tf.uint32)
    return a, b


@dataclasses.dataclass(frozen=True)
class LayerGenerator:
    """Stands in for the random generator of the model's dropout layer number `layer`."""

    layer: int

    def dropout(self, x: tf.Tensor, rate: float, noise_shape: Any = None) -> tf.Tensor:
        assert _active, "a model was called with training=True outside dropout.use_key(key)"
        assert noise_shape is None
        return seeded_dropout(x, rate, _active[-1], self.layer)


def install_seeded_dropout(model: tf_keras.layers.Layer, first: int = 0) -> None:
    """Make every Dropout layer inside `model` draw its masks from here, numbered from `first`."""
    layers = [x for x in model._flatten_layers() if isinstance(x, tf_keras.layers.Dropout)]
    for index, layer in enumerate(layers, first):
        layer._random_generator = LayerGenerator(index)
