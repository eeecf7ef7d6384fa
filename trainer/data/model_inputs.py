"""Global batches to the dictionaries of tensors that the model is called with, padded and divided among replicas.

Shapes: B rows of a global batch, W its width in tokens, R replicas of all workers or hosts together. With windows, K
windows of a text.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.data import batching, tokenization
from trainer.data.manifests import Manifest
from trainer.data.records import Columns
from trainer.data.widths import pad_lengths
from trainer.data.windows import Windows, count_windows, pack_windows, pad_windows
from trainer.distributed import input_pipelines

PREFETCHED_BATCHES = 4


@dataclasses.dataclass(frozen=True)
class BatchLayout:
    """The size of a global batch, and how its rows are divided among input pipelines, replicas and micro-batches."""

    batch_size: int  # Examples of a global batch.
    seq_length: int  # The most tokens of a row, special tokens included.
    truncation: str  # One of tokenization.TRUNCATIONS, or windows.TRUNCATION.
    pad_multiple: int  # A batch's width in tokens is a multiple of this.
    replicas: int  # Of all workers, or of all hosts of a TPU, together.
    micro_batches: int = 1  # Each replica computes its rows in this many equal parts, one after another.
    pipeline_index: int = 0  # An input pipeline makes the rows of one worker, or of one host of a TPU.
    pipeline_count: int = 1  # Every pipeline has equally many replicas.
    windows: Windows | None = None  # For windows.TRUNCATION.
    # Whether every batch is padded to `batch_size` rows. A compiler needs that: each other shape is another program.
    fixed_rows: bool = True

    @property
    def padded_rows(self) -> int:
        """B: `batch_size` rounded up to a multiple of replicas * micro_batches. The added rows have weight 0."""
        multiple = self.replicas * self.micro_batches
        return -(-self.batch_size // multiple) * multiple

    @property
    def pipeline_rows(self) -> range:
        """The rows of a padded batch that this pipeline makes."""
        rows = self.padded_rows // self.pipeline_count
        return range(self.pipeline_index * rows, (self.pipeline_index + 1) * rows)

    @property
    def static_rows(self) -> int | None:
        """The rows of this pipeline if every batch has as many."""
        return len(self.pipeline_rows) if self.fixed_rows else None

    @property
    def static_width(self) -> int | None:
        """W if every batch has the same."""
        return self.seq_length if self.pad_multiple >= self.seq_length else None

    @property
    def static_shape(self) -> list[int | None]:
        """Of a text's model inputs: [W], or with windows [K, W]. None where batches differ."""
        if self.windows is None:
            return [self.static_width]
        return [self.windows.most if self.static_width else None, self.static_width]


def padded_widths(columns: Columns, layout: BatchLayout) -> np.ndarray:
    """int64 [rows]: the tokens of each, special ones included, rounded up to pad_multiple, at most seq_length."""
    lengths = columns.lengths() + tokenization.special_token_count(2 if columns.tokens_b else 1)
    return pad_lengths(lengths, layout.seq_length, layout.pad_multiple)


def plan_evaluation(widths: np.ndarray, layout: BatchLayout) -> list[int]:
    """The sizes of an evaluation's batches, for rows of these widths, int64 [rows], longest first.

    A batch has no more tokens than `batch_size` of the longest rows, so that it takes no more memory: short texts are
    evaluated more at a time, which takes fewer steps. The sizes do not depend on the number of replicas.
    """
    if layout.fixed_rows or layout.windows:
        return [layout.batch_size] * -(-len(widths) // layout.batch_size)
    sizes, start = [], 0
    while start < len(widths):
        sizes.append(layout.batch_size * int(widths[0] // widths[start]))
        start += sizes[-1]
    return sizes


@contextlib.contextmanager
def original_exceptions(batches: Iterator[Columns]) -> Iterator[Iterator[Columns]]:
    """Yields `batches` for to_model_inputs. An exception that they raise leaves this context as it was raised.

    TensorFlow passes on the text of a generator's exception alone, in an error of its own, to whatever reads the
    dataset: a call of a tf.function, for instance. Read the dataset within this context.
    """
    raised: list[Exception] = []

    def recorded() -> Iterator[Columns]:
        try:
            yield from batches
        except Exception as error:
            raised.append(error)
            raise

    try:
        yield recorded()
    except tf.errors.OpError as error:
        if raised:
            raise raised[0] from error
        raise


def distribute_model_inputs(
    strategy: tf.distribute.Strategy, batches: Iterator[Columns], manifest: Manifest, layout: BatchLayout
) -> Iterator[Any]:
    """Iterate over distributed batches, in which each replica has its rows as to_model_inputs makes them.

    The caller must not ask for more than there are.
    """

    def build_dataset(own: Iterator[Columns], index: int, count: int) -> tf.data.Dataset:
        return to_model_inputs(own, manifest, dataclasses.replace(layout, pipeline_index=index, pipeline_count=count))

    return input_pipelines.distribute_batches(strategy, batches, build_dataset)


@tf.autograph.experimental.do_not_convert  # There is nothing to convert, and to find that takes half a second.
def to_model_inputs(batches: Iterator[Columns], manifest: Manifest, layout: BatchLayout) -> tf.data.Dataset:
    """The rows of each batch that are this pipeline's, as one element for each of its replicas in turn.

    B is `layout.padded_rows`, or without `layout.fixed_rows` what that is for as many examples as the batch has. With
    windows, the encoder's inputs are int32 [B / R, K, W], and K is that of the text with most in the global batch.

    An element is a dictionary: input_word_ids, input_mask and input_type_ids, int32 [B / R, W]; label, int32 or
    float32 [B / R], or of several labels float32 [B / R, C], 1 for those that apply; weight, float32 [B / R], 0 for
    padding rows and 1, or their own, for examples.
    """
    rows = layout.static_rows
    replicas = layout.replicas // layout.pipeline_count

    def generate() -> Iterator[dict[str, Any]]:
        for columns in batches:
            yield _own_rows(columns, manifest, layout)

    def build_inputs(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        packed = _pack(batch, manifest, layout)
        inputs = {name: tf.ensure_shape(value, [rows, *layout.static_shape]) for name, value in packed.items()}
        return {**inputs, "label": batch["label"], "weight": batch["weight"]}

    def divide(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {
            name: tf.reshape(value, [replicas, rows // replicas if rows else -1, *_static_shape(value)[1:]])
            for name, value in batch.items()
        }

    dataset = tf.data.Dataset.from_generator(generate, output_signature=_own_rows_signature(manifest, layout)).map(
        build_inputs, num_parallel_calls=1
    )
    if replicas > 1:
        dataset = dataset.map(divide).unbatch()
    options = tf.data.Options()
    # Nothing here is left to autotuning, and ending its thread takes up to a minute.
    options.autotune.enabled = False
    return dataset.prefetch(PREFETCHED_BATCHES * replicas).with_options(options)


def _label_type(manifest: Manifest) -> type[np.number]:
    return np.int32 if manifest.kind == "classification" else np.float32


def _own_rows(columns: Columns, manifest: Manifest, layout: BatchLayout) -> dict[str, Any]:
    """The rows of a global batch that are this pipeline's, with padding rows, as _own_rows_signature says."""
    own = layout.pipeline_rows
    if not layout.fixed_rows:
        own = dataclasses.replace(layout, batch_size=len(columns)).pipeline_rows
    selected = columns
    if layout.pipeline_count > 1:
        selected = batching.select_rows(columns, np.arange(len(columns))[own.start : own.stop])
    padding = len(own) - len(selected)
    labels = selected.labels.astype(_label_type(manifest))
    weights = np.ones(len(selected), np.float32) if selected.weights is None else selected.weights
    batch: dict[str, Any] = {
        "values": selected.tokens.values,
        "lengths": np.pad(selected.tokens.lengths(), (0, padding)),
        "label": np.pad(labels, [(0, padding), *[(0, 0)] * (labels.ndim - 1)]),
        "weight": np.pad(weights, (0, padding)),
        # The width of the global batch, so that it does not depend on the number of pipelines.
        "width": np.int32(padded_widths(columns, layout).max()),
    }
    if layout.windows:
        batch["longest"] = np.int32(columns.lengths().max())  # Of the global batch, too.
    if selected.tokens_b:
        batch["values_b"] = selected.tokens_b.values
        batch["lengths_b"] = np.pad(selected.tokens_b.lengths(), (0, padding))
    return batch


def _own_rows_signature(manifest: Manifest, layout: BatchLayout) -> dict[str, tf.TensorSpec]:
    rows = layout.static_rows
    lengths = tf.TensorSpec([rows], tf.int64)
    values = tf.TensorSpec([None], tf.int32)
    label_shape = [rows, manifest.classes] if manifest.kind == "multi_label" else [rows]
    return {
        "values": values,
        "lengths": lengths,
        "label": tf.TensorSpec(label_shape, _label_type(manifest)),
        "weight": tf.TensorSpec([rows], tf.float32),
        "width": tf.TensorSpec([], tf.int32),
        **({"values_b": values, "lengths_b": lengths} if manifest.texts == 2 else {}),
        **({"longest": tf.TensorSpec([], tf.int32)} if layout.windows else {}),
    }


def _pack(batch: dict[str, tf.Tensor], manifest: Manifest, layout: BatchLayout) -> dict[str, tf.Tensor]:
    """The encoder's inputs for rows as _own_rows makes them."""
    vocabulary = manifest.vocabulary
    special = tokenization.SpecialTokens(vocabulary.start, vocabulary.end, vocabulary.padding)
    tokens = tf.RaggedTensor.from_row_lengths(batch["values"], batch["lengths"])
    if layout.windows:
        rows_of_windows, counts = pack_windows(tokens, special, layout.seq_length, layout.windows, batch["width"])
        largest = count_windows(batch["longest"], layout.windows)
        return pad_windows(rows_of_windows, counts, special, layout.static_shape[0] or largest)
    tokens_b = None
    if manifest.texts == 2:
        tokens_b = tf.RaggedTensor.from_row_lengths(batch["values_b"], batch["lengths_b"])
    return tokenization.pack_inputs(tokens, tokens_b, special, layout.seq_length, layout.truncation, batch["width"])


def _static_shape(x: tf.Tensor) -> list[int | tf.Tensor]:
    """The shape, each dimension an int if it is known and a scalar tensor if not."""
    return [tf.shape(x)[i] if size is None else size for i, size in enumerate(x.shape)]
