"""A split -> predictions, each example once, in the order of the shards."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tqdm

from trainer.data import batching, manifests, model_inputs, records
from trainer.distributed import strategies
from trainer.evals.metrics import Predictions


def predict_rows(
    strategy: tf.distribute.Strategy,
    step: Callable,
    columns: records.Columns,
    manifest: manifests.Manifest,
    layout: model_inputs.BatchLayout,
    *,
    name: str,
    progress: bool,
    between: Callable[[], None] = lambda: None,
) -> Predictions:
    """Run the evaluation step over all of `columns`. `between` is called after each batch, and may raise to stop."""
    order = batching.evaluation_order(columns)
    logits, losses = [], []
    with (
        model_inputs.original_exceptions(batching.evaluation_batches(columns, layout.batch_size)) as stream,
        tqdm.tqdm(total=len(columns), desc=name, unit=" texts", disable=not progress, leave=False) as bar,
    ):
        batches = strategies.distribute_batches(strategy, model_inputs.to_model_inputs(stream, manifest, layout))
        for start in range(0, len(order), layout.batch_size):
            size = min(layout.batch_size, len(order) - start)
            rows, each = step(next(batches))
            logits.append(rows[:size])
            losses.append(each[:size])
            bar.update(size)
            between()
    back = np.argsort(order)
    return Predictions(columns.ids, columns.labels, np.concatenate(logits)[back], np.concatenate(losses)[back])
