"""Batches for the replicas: one input pipeline for each host with replicas of this process."""

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import tensorflow as tf

Batch = TypeVar("Batch")


def distribute_batches(
    strategy: tf.distribute.Strategy,
    batches: Iterator[Batch],
    build_dataset: Callable[[Iterator[Batch], int, int], tf.data.Dataset],
) -> Iterator[Any]:
    """Iterate over the global batches `batches` as the replicas get them.

    `build_dataset(batches, index, count)` returns the dataset of input pipeline `index` of `count`: one element for
    each of its replicas in turn. Every pipeline has equally many replicas. With a remote TPU it is called once a host,
    with the same batches, which are made once and in this process; with several workers, by each for its own pipeline.

    The caller must not ask for more than there are: the datasets are declared infinite, which spares the workers a
    collective before each batch on whether any of them has reached the end.
    """
    lock = threading.Lock()
    rest = [batches]

    def next_pipeline(context: tf.distribute.InputContext) -> tf.data.Dataset:
        own, rest[0] = itertools.tee(rest[0])
        dataset = build_dataset(_locked(own, lock), context.input_pipeline_id, context.num_input_pipelines)
        return dataset.apply(tf.data.experimental.assert_cardinality(tf.data.experimental.INFINITE_CARDINALITY))

    distributed = strategy.distribute_datasets_from_function(next_pipeline)
    rest.clear()  # What no pipeline reads would be kept in memory.
    return iter(distributed)


def _locked(batches: Iterator[Batch], lock: threading.Lock) -> Iterator[Batch]:
    """The same, for a thread of its own: copies by itertools.tee must not be read at the same time."""
    end = object()
    while True:
        with lock:
            batch = next(batches, end)
        if batch is end:
            return
        yield batch  # type: ignore[misc]
