"""Batches of rows -> the dictionaries of tensors that the model takes, padded and split over replicas."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.data import batching, tokenization
from trainer.data.manifests import Manifest
from trainer.data.records import Columns


@dataclasses.dataclass(frozen=True)
class BatchLayout:
    """How examples become a batch of encoder inputs."""

    batch_size: int  # B, global
    seq_length: int
    truncation: str
    pad_multiple: int
    replicas: int
    parts: int = 1  # that each replica's share is computed in, one after another
    worker: int = 0  # this one, of
    workers: int = 1  # that have as many replicas each

    @property
    def rows(self) -> int:
        """Rows of a padded batch: B, rounded up to what the replicas and their parts divide. The others weigh 0."""
        shares = self.replicas * self.parts
        return -(-self.batch_size // shares) * shares

    @property
    def own_rows(self) -> range:
        """This worker's rows of a padded batch."""
        rows = self.rows // self.workers
        return range(self.worker * rows, (self.worker + 1) * rows)

    @property
    def static_width(self) -> int | None:
        """W where it is always the same, as a TPU wants it: every other width is a program to be compiled."""
        return self.seq_length if self.pad_multiple >= self.seq_length else None


def padded_width(columns: Columns, layout: BatchLayout) -> int:
    """W: the longest text with its special tokens, rounded up, at most seq_length."""
    longest = int(columns.lengths().max()) + tokenization.special_token_count(2 if columns.tokens_b else 1)
    return min(-(-longest // layout.pad_multiple) * layout.pad_multiple, layout.seq_length)


def to_model_inputs(batches: Iterator[Columns], manifest: Manifest, layout: BatchLayout) -> tf.data.Dataset:
    """This worker's share of the batches as a dataset of an element for each of its replicas in turn: dicts of
    input_word_ids, input_mask, input_type_ids: int32 [B / R, W]; label: int32 or float32 [B / R];
    weight: float32 [B / R], 0 for rows that only fill the batch up.
    """
    pair = manifest.texts == 2
    special = tokenization.SpecialTokens(
        manifest.vocabulary.start, manifest.vocabulary.end, manifest.vocabulary.padding
    )
    label_type = tf.float32 if manifest.kind == "regression" else tf.int32
    rows = len(layout.own_rows)

    def arrays() -> Iterator[dict[str, Any]]:
        for columns in batches:
            own = columns
            if layout.workers > 1:
                own = batching.select_rows(
                    columns, np.arange(len(columns))[layout.own_rows.start : layout.own_rows.stop]
                )
            filling = rows - len(own)
            batch: dict[str, Any] = {
                "values": own.tokens.values,
                "lengths": np.pad(own.tokens.lengths(), (0, filling)),
                "label": np.pad(own.labels, (0, filling)),
                "weight": np.pad(np.ones(len(own), np.float32), (0, filling)),
                "width": np.int32(padded_width(columns, layout)),  # of the whole batch: as on one machine
            }
            if own.tokens_b:
                batch["values_b"] = own.tokens_b.values
                batch["lengths_b"] = np.pad(own.tokens_b.lengths(), (0, filling))
            yield batch

    def packed(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        tokens = tf.RaggedTensor.from_row_lengths(batch["values"], batch["lengths"])
        tokens_b = tf.RaggedTensor.from_row_lengths(batch["values_b"], batch["lengths_b"]) if pair else None
        inputs = tokenization.pack_inputs(
            tokens, tokens_b, special, layout.seq_length, layout.truncation, batch["width"]
        )
        inputs = {name: tf.ensure_shape(value, [rows, layout.static_width]) for name, value in inputs.items()}
        return {**inputs, "label": batch["label"], "weight": batch["weight"]}

    replicas = layout.replicas // layout.workers

    def for_replicas(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {
            name: tf.reshape(value, [replicas, rows // replicas, *_static_shape(value)[1:]])
            for name, value in batch.items()
        }

    lengths = tf.TensorSpec([rows], tf.int64)
    values = tf.TensorSpec([None], tf.int32)
    signature = {
        "values": values,
        "lengths": lengths,
        "label": tf.TensorSpec([rows], label_type),
        "weight": tf.TensorSpec([rows], tf.float32),
        "width": tf.TensorSpec([], tf.int32),
        **({"values_b": values, "lengths_b": lengths} if pair else {}),
    }
    dataset = tf.data.Dataset.from_generator(arrays, output_signature=signature).map(packed, num_parallel_calls=1)
    if replicas > 1:
        dataset = dataset.map(for_replicas).unbatch()
    options = tf.data.Options()
    options.autotune.enabled = False  # nothing is left to it, and ending its thread takes up to a minute
    return dataset.prefetch(4 * replicas).with_options(options)


def _static_shape(x: tf.Tensor) -> list[int | tf.Tensor]:
    """The shape, each dimension a number where it is known."""
    return [tf.shape(x)[i] if size is None else size for i, size in enumerate(x.shape)]
