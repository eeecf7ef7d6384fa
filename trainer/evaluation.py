"""A split -> predictions, each example once, in the order of the shards."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tqdm

from trainer import data, records
from trainer.metrics import Predictions


def distribute(strategy: tf.distribute.Strategy, dataset: tf.data.Dataset) -> tf.distribute.DistributedDataset:
    """`dataset` yields one element for each replica in turn (data.to_inputs)."""
    return strategy.distribute_datasets_from_function(lambda _: dataset)


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
    dataset = data.to_inputs(data.evaluation_batches(columns, layout.batch_size), manifest, layout)
    order = data.evaluation_order(columns)
    sizes = (min(layout.batch_size, len(order) - start) for start in range(0, len(order), layout.batch_size))
    logits, losses = [], []
    with tqdm.tqdm(total=len(columns), desc=name, unit=" texts", disable=not progress, leave=False) as bar:
        for batch, size in zip(distribute(strategy, dataset), sizes, strict=True):
            scored = step(batch)
            logits.append(scored[0].numpy()[:size])
            losses.append(scored[1].numpy()[:size])
            bar.update(size)
            between()
    back = np.argsort(order)
    return Predictions(columns.ids, columns.labels, np.concatenate(logits)[back], np.concatenate(losses)[back])
