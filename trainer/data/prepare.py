"""Rows to a prepared data set: splits, tokens, TFRecord shards, and the manifest last."""

import collections
import dataclasses
import itertools
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
import tqdm

from trainer.data import (
    fast_wordpiece,
    label_scale,
    label_sets,
    labels,
    manifests,
    records,
    splits,
    task_rows,
    tasks,
    tokenization,
)
from trainer.data.manifests import Shard, Split
from trainer.data.records import Example
from trainer.data.sources import Texts
from trainer.data.stored_rows import AnyRow
from trainer.errors import Problem, UserError
from trainer.storage import fs

# Texts that are tokenized together.
TOKENIZE_BATCH_TEXTS = 256
# For fewer texts, making the faster tokenizer takes longer than it saves.
MIN_FAST_TEXTS = 10_000
# A split has 16 shards, so that several readers work in parallel: fewer if they would hold less than 64 examples each,
# more if they would hold more than 32,768.
SHARDS, MIN_SHARD_EXAMPLES, MAX_SHARD_EXAMPLES = 16, 64, 32768
PERCENTILES = (50, 90, 99, 100)
# The first bucket of the histogram of lengths holds texts of at most 1 << 3 tokens.
MIN_HISTOGRAM_BITS = 3


def _tokenize_rows(
    rows: Sequence[AnyRow], tokenizer: tokenization.Tokenizer
) -> Iterator[tuple[AnyRow, Texts, np.ndarray, np.ndarray | None]]:
    """Each row in turn with its texts and their tokens, int32 [T] and, for pairs, int32 [T_b].

    Texts are tokenized in parallel, and truncated to MAX_TOKENS.
    """
    pairs = rows[0].texts().text_b is not None
    read: collections.deque[Texts] = collections.deque()  # Of the rows that are being tokenized.
    signature = (tf.TensorSpec([None], tf.string),) * (2 if pairs else 1)

    def batches() -> Iterator[tuple[list[str], ...]]:  # As one tensor, all texts would be in memory.
        for start in range(0, len(rows), TOKENIZE_BATCH_TEXTS):
            part = [row.texts() for row in rows[start : start + TOKENIZE_BATCH_TEXTS]]
            read.extend(part)
            yield ([texts.text for texts in part], *([[texts.text_b or "" for texts in part]] if pairs else []))

    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)

    def tokenize(*texts: tf.Tensor) -> tuple[tf.RaggedTensor, ...]:
        budget = tf.constant(manifests.MAX_TOKENS)
        return tuple(tokenization.truncate(tokenizer.tokenize(t), budget, "head_tail") for t in texts)

    remaining = iter(rows)
    for batch in dataset.map(tokenize, num_parallel_calls=tf.data.AUTOTUNE).prefetch(4):
        parts = [np.split(ragged.values.numpy(), ragged.row_splits.numpy()[1:-1]) for ragged in batch]
        for tokens, tokens_b in itertools.zip_longest(parts[0], parts[1] if pairs else []):
            yield next(remaining), read.popleft(), tokens, tokens_b


def shard_count(examples: int) -> int:
    """The number of shards of a split."""
    return max(min(SHARDS, math.ceil(examples / MIN_SHARD_EXAMPLES)), math.ceil(examples / MAX_SHARD_EXAMPLES))


def _length_histogram(lengths: np.ndarray) -> dict[str, int]:
    """Upper bound, a power of 2 -> the number of `lengths` (int64 [rows]) up to it and above the bound before."""
    bounds = [1 << max(int(n - 1).bit_length(), MIN_HISTOGRAM_BITS) for n in lengths]
    return {str(bound): count for bound, count in sorted(collections.Counter(bounds).items())}


def write_split(
    name: str,
    rows: Sequence[AnyRow],
    tokenizer: tokenization.Tokenizer,
    classes: Sequence[str],
    folder: str,
    progress: tqdm.tqdm,
) -> Split:
    """Write the shards of the split `name`, and describe them. `classes` is empty for regression."""
    count = shard_count(len(rows))
    class_index = {label: index for index, label in enumerate(classes)}
    lengths = np.zeros(len(rows), np.int64)
    examples = enumerate(_tokenize_rows(rows, tokenizer))
    shards = []
    for shard in range(count):
        size = (shard + 1) * len(rows) // count - shard * len(rows) // count
        # A local file first: fs verifies an upload's checksum, TensorFlow does not.
        with tempfile.NamedTemporaryFile() as local, tf.io.TFRecordWriter(local.name) as writer:
            for index, (row, texts, tokens, tokens_b) in itertools.islice(examples, size):
                label = _stored_label(row, class_index)
                example = Example(row.id, texts.text, texts.text_b, tokens, tokens_b, label, row.weight, texts.kept)
                writer.write(records.serialize_example(example))
                lengths[index] = len(tokens) + (0 if tokens_b is None else len(tokens_b))
                progress.update()
            writer.close()
            data = Path(local.name).read_bytes()
        shard_name = manifests.shard_name(name, shard, count)
        fs.write_bytes(fs.join(folder, shard_name), data)
        shards.append(Shard(shard_name, size, len(data), fs.crc32c(data)))
    label_counts = collections.Counter(name for row in rows for name in row.label_names)
    percentiles = np.percentile(lengths, PERCENTILES, method="higher")
    return Split(
        examples=len(rows),
        shards=tuple(shards),
        label_counts={label: label_counts[label] for label in classes},
        length_percentiles={str(p): int(value) for p, value in zip(PERCENTILES, percentiles, strict=True)},
        length_histogram=_length_histogram(lengths),
    )


def _stored_label(row: AnyRow, class_index: Mapping[str, int]) -> int | float | tuple[int, ...]:
    """Example.label. `class_index` is empty for regression."""
    if row.labels is not None:
        return tuple(sorted(class_index[name] for name in row.labels))
    return class_index[row.label] if class_index else float(row.label)


def _find_problems(rows: Sequence[AnyRow], split: splits.SplitRows, kind: str) -> list[Problem]:
    """Why nothing can be trained on the rows, which are split already."""
    if kind == "regression":
        values = np.fromiter((float(row.label) for row in rows), np.float64, len(rows))
        problems = label_scale.find_number_problems(values)
    else:
        problems = splits.find_label_problems(split.rows, kind)
    if rows[0].weight is not None and not any(row.weight for row in split.rows["train"]):
        problems = [*problems, Problem("--weight_column", "have weights above 0 in train", "0 in all its rows")]
    return problems


def _describe_vocabulary(tokenizer: tokenization.Tokenizer, preprocess: str) -> manifests.Vocabulary:
    """Raises UserError if the preprocessor has none."""
    sha256 = tokenization.vocabulary_sha256(preprocess)
    if sha256 is None:
        raise UserError(Problem("A preprocessor", "have its vocabulary among its assets", preprocess))
    special = dataclasses.asdict(tokenizer.special)
    return manifests.Vocabulary(sha256, tokenizer.vocabulary_size, tokenizer.lower_case, **special)


def _describe_findings(read: task_rows.SourceRows, split: splits.SplitRows, task: str, kind: str) -> manifests.Findings:
    without_label = {}
    if kind == "multi_label":
        decision = label_sets.describe_decision([row.label_names for row in read.rows], read.label_form)
        without_label = {name: sum(not row.labels for row in part) for name, part in split.rows.items()}
    else:
        label_type = "" if task in task_rows.READERS else read.label_type
        decision = labels.describe_decision((row.label for row in read.rows), label_type, kind)
    return manifests.Findings(
        decision,
        split.copies,
        split.contradicting_texts,
        split.contradicting_examples,
        split.train_only_classes,
        without_label,
    )


def prepare_data_set(
    read: task_rows.SourceRows,
    *,
    task: str,
    class_names: tuple[str, ...] | None,
    encoder: str,
    preprocess: str,
    output: str,
    seed: int,
    kept_columns: tuple[str, ...] = (),
    validation_fraction: float = tasks.VALIDATION_FRACTION_OF_TRAIN,
    progress: bool = True,
) -> manifests.Manifest:
    """Write a data set of the rows that were read to the folder `output`. Returns its manifest, which is written last.

    `class_names` are the classes by index, where the task fixes them. `preprocess` is a Hub preprocessor's folder,
    `encoder` the name to record of the encoder that it belongs to. `kept_columns` names the values that each row keeps;
    `validation_fraction` is what splits.split_rows makes of it. `progress` shows a bar. Raises UserError, before
    anything is written, for rows that cannot be split, or labels that cannot be trained on.
    """
    rows = read.rows
    kind = labels.label_kind((row.label for row in rows), read.label_type)
    split = splits.split_rows(rows, kind, seed, validation_fraction)
    problems = _find_problems(rows, split, kind)
    if problems:
        raise UserError(*problems)
    classes: tuple[str, ...] = ()
    if kind != "regression":
        classes = class_names or labels.class_names(name for row in rows for name in row.label_names)
    findings = _describe_findings(read, split, task, kind)
    tokenizer = tokenization.load_tokenizer(preprocess)
    if len(rows) >= MIN_FAST_TEXTS:
        tokenizer = fast_wordpiece.speed_up(tokenizer, preprocess)
    vocabulary = _describe_vocabulary(tokenizer, preprocess)

    remove_data_set(output)
    fs.make_folder(output)
    total = sum(map(len, split.rows.values()))
    with tqdm.tqdm(total=total, unit=" texts", desc="tokenizing", disable=not progress) as bar:
        written = {name: write_split(name, part, tokenizer, classes, output, bar) for name, part in split.rows.items()}
    fs.copy_folder(preprocess, fs.join(output, manifests.PREPROCESS_FOLDER))
    manifest = manifests.Manifest(
        task=task,
        kind=kind,
        texts=1 if rows[0].texts().text_b is None else 2,
        labels=classes,
        encoder=encoder,
        vocabulary=vocabulary,
        seed=seed,
        splits=written,
        removed={**split.removed, "bad_rows": read.bad_rows},
        findings=findings,
        weighted=rows[0].weight is not None,
        kept_columns=kept_columns,
    )
    manifests.write_manifest(output, manifest)
    return manifest


def prepare_task(
    options: task_rows.SourceOptions,
    *,
    encoder: str,
    preprocess: str,
    output: str,
    seed: int = 0,
    progress: bool = True,
) -> manifests.Manifest:
    """Read a task's rows (task_rows.read_rows) and write them as a data set (prepare_data_set)."""
    return prepare_data_set(
        task_rows.read_rows(options),
        task=options.task,
        class_names=None if options.label_type == "number" else tasks.TASKS[options.task].labels,
        encoder=encoder,
        preprocess=preprocess,
        output=output,
        seed=seed,
        kept_columns=options.columns.kept,
        validation_fraction=tasks.TASKS[options.task].validation_fraction,
        progress=progress,
    )


def remove_data_set(folder: str) -> None:
    """Remove an earlier data set from the folder, its manifest first. Other files stay."""
    if fs.is_folder(folder):
        fs.remove(fs.join(folder, manifests.MANIFEST_FILE))
        for name in fs.list_names(folder):
            if name.endswith(".tfrecord") or name == manifests.PREPROCESS_FOLDER:
                fs.remove(fs.join(folder, name))
