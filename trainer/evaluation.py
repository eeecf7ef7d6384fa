"""A split -> predictions, each example once, in the order of the shards."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tqdm

from trainer import data, records
from trainer.metrics import Predictions


def distribute(strategy: tf.distribute.Strategy, dataset: tf.data.Dataset) -> Iterator[Any]:
    """Global batches of a `dataset` that yields an element for each of this worker's replicas in turn (data.to_inputs).

    Take no more of them than there are: said to be infinite, the dataset spares the workers an exchange before each
    batch, on whether any of them has run dry.
    """
    endless = dataset.apply(tf.data.experimental.assert_cardinality(tf.data.experimental.INFINITE_CARDINALITY))
    return iter(strategy.distribute_datasets_from_function(lambda _: endless))


def predict(
    strategy: tf.distribute.Strategy,
    step: Callable,
    columns: records.Columns,
    manifest: records.Manifest,
    layout: data.Layout,
    *,
    name: str,
    progress: bool,
    between: Callable[[], None] = lambda: None,
) -> Predictions:
    """Run the evaluation step over all of `columns`. `between` is called after each batch, and may raise to stop."""
    batches = distribute(
        strategy, data.to_inputs(data.evaluation_batches(columns, layout.batch_size), manifest, layout)
    )
    order = data.evaluation_order(columns)
    logits, losses = [], []
    with tqdm.tqdm(total=len(columns), desc=name, unit=" texts", disable=not progress, leave=False) as bar:
        for start in range(0, len(order), layout.batch_size):
            size = min(layout.batch_size, len(order) - start)
            rows, each = step(next(batches))
            logits.append(rows[:size])
            losses.append(each[:size])
            bar.update(size)
            between()
    back = np.argsort(order)
    return Predictions(columns.ids, columns.labels, np.concatenate(logits)[back], np.concatenate(losses)[back])
