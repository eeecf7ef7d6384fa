"""Predict a split: each example exactly once, for any batch size, strategy and number of replicas."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tqdm

from trainer.data import batching, manifests, model_inputs, records
from trainer.evals.metrics import Predictions
from trainer.runtime import watchdog


def predict_rows(
    strategy: tf.distribute.Strategy,
    eval_step: Callable,
    columns: records.Columns,
    manifest: manifests.Manifest,
    layout: model_inputs.BatchLayout,
    *,
    name: str,
    progress: bool,
    after_batch: Callable[[], None] = lambda: None,
) -> Predictions:
    """Return the predictions of all N rows of `columns`, in their order.

    `eval_step` (steps.build_eval_step) takes the next of an iterator's distributed batches, and returns its logits,
    float32 [rows, classes], and losses, float32 [rows]: first those of examples, then those of padding. `name` labels
    the progress bar. `after_batch` is called after each batch, and stops the evaluation by raising.
    """
    order = batching.evaluation_order(columns)
    sizes = model_inputs.plan_evaluation(model_inputs.padded_widths(columns, layout)[order], layout)
    logits, losses, start = [], [], 0
    with (
        model_inputs.original_exceptions(batching.evaluation_batches(columns, sizes)) as stream,
        tqdm.tqdm(total=len(columns), desc=name, unit=" texts", disable=not progress, leave=False) as bar,
    ):
        batches = model_inputs.distribute_model_inputs(strategy, stream, manifest, layout)
        for size in sizes:
            examples = min(size, len(order) - start)
            with watchdog.stop_if_stuck("a batch of an evaluation"):
                batch_logits, batch_losses = eval_step(batches)
                after_batch()
            logits.append(batch_logits[:examples])
            losses.append(batch_losses[:examples])
            start += examples
            bar.update(examples)
    position = np.argsort(order)  # Where each row of `columns` is among the evaluated rows.
    return Predictions(columns.ids, columns.labels, np.concatenate(logits)[position], np.concatenate(losses)[position])
