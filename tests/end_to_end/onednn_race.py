"""Crashes TensorFlow 2.20 on a processor with AVX-512, most times. docs/onednn.md explains it and has the program too.

  python tests/end_to_end/onednn_race.py [SHAPES]      400 shapes take 3 s, once TensorFlow is imported

Two matrix products of a column and a row run at the same time: one of operands stored as they are, one of operands
stored transposed. Each shape is new to oneDNN, so that both create a primitive.
"""

import sys

import tensorflow as tf

SIDE = 32
MATRIX = tf.TensorSpec([None, 2, None, None])


@tf.function(input_signature=[MATRIX, MATRIX])
def multiply_both_ways(column: tf.Tensor, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """float32 [batch, 2, SIDE, SIDE], twice: column [batch, 2, SIDE, 1] times row [batch, 2, 1, SIDE]."""
    plain = tf.matmul(column, row)
    transposed = tf.matmul(tf.reshape(column, tf.shape(row)), tf.reshape(row, tf.shape(column)), True, True)
    return plain, transposed


def main(shapes: int) -> None:
    tf.config.threading.set_inter_op_parallelism_threads(2)  # Both products at once.
    for batch in range(2, 2 + shapes):
        column, row = tf.random.normal([batch, 2, SIDE, 1]), tf.random.normal([batch, 2, 1, SIDE])
        for product in multiply_both_ways(column, row):
            tf.debugging.assert_near(product, column * row)
    print(f"{shapes} shapes, all right")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 400)
