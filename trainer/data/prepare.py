"""Rows -> splits, duplicates out, tokens, shards, and the manifest last."""

import collections
import dataclasses
import hashlib
import itertools
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
import tqdm

from trainer.data import manifests, records, sources, tokenization
from trainer.data.manifests import Shard, Split
from trainer.data.records import Example
from trainer.data.sources import Row
from trainer.storage import fs

# The tutorial's share of train for validation, where the source has a test split of its own.
VALIDATION_OF_TRAIN = 0.2
# Of a source without a test split: 80/10/10.
TEST_OF_ALL, VALIDATION_OF_ALL = 0.1, 0.1

TOKENIZE_BATCH = 256


def _order(row: Row, seed: int) -> bytes:
    """A place in a shuffle that depends on the seed and the row's id alone, on any machine and version."""
    return hashlib.sha256(f"{seed}:{row.id!r}".encode()).digest()


def _strata(rows: Sequence[Row], kind: str) -> Mapping[object, list[Row]]:
    """Rows by class, or by tenth of the numbers' ranks."""
    groups: dict[object, list[Row]] = collections.defaultdict(list)
    if kind == "classification":
        for row in rows:
            groups[row.label].append(row)
    else:
        ranked = sorted(rows, key=lambda row: float(row.label))
        for rank, row in enumerate(ranked):
            groups[rank * 10 // len(ranked)].append(row)
    return groups


def stratified_split(rows: Sequence[Row], share: float, kind: str, seed: int) -> tuple[list[Row], list[Row]]:
    """(taken, left): `share` of the rows, rounded, in the same proportion from every class; both shuffled.

    A class keeps at least one row in `left`.
    """
    taken: list[Row] = []
    seen = 0
    groups = _strata(rows, kind)
    for key in sorted(groups, key=str):
        group = sorted(groups[key], key=lambda row: _order(row, seed))
        seen += len(group)
        # Rounding the running total, not each class's share, makes the whole exact.
        count = min(round(seen * share) - len(taken), len(group) - 1)
        taken += group[: max(count, 0)]
    chosen = {row.id for row in taken}
    left = [row for row in rows if row.id not in chosen]
    return sorted(taken, key=lambda row: _order(row, seed)), sorted(left, key=lambda row: _order(row, seed))


def without_texts_of(rows: Sequence[Row], others: Sequence[Row]) -> list[Row]:
    """The rows whose text, white space around it aside, is none of the others'."""
    texts = {(row.text.strip(), (row.text_b or "").strip()) for row in others}
    return [row for row in rows if (row.text.strip(), (row.text_b or "").strip()) not in texts]


def split_rows(rows: Sequence[Row], kind: str, seed: int) -> tuple[dict[str, list[Row]], int]:
    """({"train", "validation", "test"}, how many rows of train and validation were a test text's duplicates, now out).

    Raises ValueError if a split would be empty.
    """
    test = [row for row in rows if row.split == "test"]
    if test:
        rest = [row for row in rows if row.split != "test"]
        share = VALIDATION_OF_TRAIN
    else:
        test, rest = stratified_split(rows, TEST_OF_ALL, kind, seed)
        share = VALIDATION_OF_ALL / (1 - TEST_OF_ALL)
    clean = without_texts_of(rest, test)
    validation, train = stratified_split(clean, share, kind, seed)
    splits = {"train": train, "validation": validation, "test": sorted(test, key=lambda row: _order(row, seed))}
    empty = [name for name, part in splits.items() if not part]
    if empty:
        raise ValueError(
            f"The source must have rows enough for train, validation and test. Received: {len(rows)} rows, which "
            f"leave {', '.join(empty)} empty."
        )
    return splits, len(rest) - len(clean)


def check_labels(splits: Mapping[str, Sequence[Row]], labels: Sequence[str]) -> None:
    """Raises ValueError if there is one class only, or if a split has a class that train has not."""
    if len(labels) < 2:
        raise ValueError(f"The labels must be of two classes or more. Received: one class, {labels[0]!r}.")
    known = {row.label for row in splits["train"]}
    for name, rows in splits.items():
        unseen = sorted({row.label for row in rows} - known)
        if unseen:
            raise ValueError(
                f"Every label must appear in train. Received: {', '.join(map(repr, unseen[:5]))} in {name} only. Is "
                "--label_column right in both files?"
            )


def _tokens(
    rows: Sequence[Row], tokenizer: tokenization.Tokenizer
) -> Iterator[tuple[Row, np.ndarray, np.ndarray | None]]:
    """Each row with its tokens; the documents are tokenised in parallel, and come in order."""
    pair = rows[0].text_b is not None
    columns = [[row.text for row in rows]] + ([[row.text_b or "" for row in rows]] if pair else [])
    dataset = tf.data.Dataset.from_tensor_slices(tuple(columns)).batch(TOKENIZE_BATCH)

    def tokenize(*texts: tf.Tensor) -> tuple[tf.RaggedTensor, ...]:
        cap = tf.constant(manifests.MAX_TOKENS)
        return tuple(tokenization.truncate(tokenizer.tokenize(t), cap, "head_tail") for t in texts)

    place = 0
    for batch in dataset.map(tokenize, num_parallel_calls=tf.data.AUTOTUNE).prefetch(4):
        parts = [np.split(ragged.values.numpy(), ragged.row_splits.numpy()[1:-1]) for ragged in batch]
        for tokens, tokens_b in itertools.zip_longest(parts[0], parts[1] if pair else []):
            yield rows[place], tokens, tokens_b
            place += 1


def shard_count(examples: int) -> int:
    """16 shards, so that readers work in parallel; fewer for a small data set, more for one of millions."""
    return max(min(16, math.ceil(examples / 64)), math.ceil(examples / 32768))


def _length_histogram(lengths: np.ndarray) -> dict[str, int]:
    bounds = [1 << max(int(n - 1).bit_length(), 3) for n in lengths]
    return {str(bound): count for bound, count in sorted(collections.Counter(bounds).items())}


def write_split(
    name: str,
    rows: Sequence[Row],
    tokenizer: tokenization.Tokenizer,
    labels: Sequence[str],
    folder: str,
    bar: tqdm.tqdm,
) -> Split:
    """Write one split's shards and describe them. `labels` is empty for regression."""
    count = shard_count(len(rows))
    index = {label: place for place, label in enumerate(labels)}
    lengths = np.zeros(len(rows), np.int64)
    examples = enumerate(_tokens(rows, tokenizer))
    shards = []
    for shard in range(count):
        size = (shard + 1) * len(rows) // count - shard * len(rows) // count
        # Written here first: an upload by storage is held against its checksum, one by TensorFlow is not.
        with tempfile.NamedTemporaryFile() as local, tf.io.TFRecordWriter(local.name) as writer:
            for place, (row, tokens, tokens_b) in itertools.islice(examples, size):
                label = index[row.label] if labels else float(row.label)
                writer.write(records.serialize_example(Example(row.id, row.text, row.text_b, tokens, tokens_b, label)))
                lengths[place] = len(tokens) + (0 if tokens_b is None else len(tokens_b))
                bar.update()
            writer.close()
            data = Path(local.name).read_bytes()
        fs.write_bytes(fs.join(folder, manifests.shard_name(name, shard, count)), data)
        shards.append(Shard(manifests.shard_name(name, shard, count), size, len(data), fs.crc32c(data)))
    counts = collections.Counter(row.label for row in rows)
    percentiles = np.percentile(lengths, [50, 90, 99, 100], method="higher")
    return Split(
        examples=len(rows),
        shards=tuple(shards),
        label_counts={label: counts[label] for label in labels},
        length_percentiles={str(p): int(value) for p, value in zip((50, 90, 99, 100), percentiles, strict=True)},
        length_histogram=_length_histogram(lengths),
    )


def prepare_data_set(
    rows: Sequence[Row],
    *,
    task: str,
    label_type: str,
    labels: tuple[str, ...] | None,
    encoder: str,
    preprocess: str,
    output: str,
    seed: int,
    skipped: int,
) -> manifests.Manifest:
    """Write a data set of `rows` to `output`. The manifest comes last: a folder without it is no data set.

    `labels` are the class names where the task fixes them; `skipped` is how many bad rows were left
    out on the way here. Raises ValueError, before anything is written, for labels or splits that
    cannot be trained on.
    """
    kind = sources.label_kind((row.label for row in rows), label_type)
    splits, duplicates = split_rows(rows, kind, seed)
    classes: tuple[str, ...] = ()
    if kind == "classification":
        classes = labels or sources.class_names(row.label for row in rows)
        check_labels(splits, [label for label in classes if any(row.label == label for row in rows)])
    tokenizer = tokenization.load_tokenizer(preprocess)
    sha256 = tokenization.vocabulary_sha256(preprocess)
    if sha256 is None:
        raise ValueError(f"A preprocessor must have its vocabulary among its assets. Received: {preprocess}.")

    clear(output)
    fs.make_folder(output)
    with tqdm.tqdm(total=sum(map(len, splits.values())), unit=" texts", desc="tokenising") as bar:
        written = {name: write_split(name, part, tokenizer, classes, output, bar) for name, part in splits.items()}
    fs.copy_folder(preprocess, fs.join(output, manifests.PREPROCESS_FOLDER))  # so that the data set is whole in itself
    manifest = manifests.Manifest(
        task=task,
        kind=kind,
        texts=1 if rows[0].text_b is None else 2,
        labels=classes,
        encoder=encoder,
        vocabulary=manifests.Vocabulary(
            sha256, tokenizer.vocabulary_size, tokenizer.lower_case, **dataclasses.asdict(tokenizer.special)
        ),
        seed=seed,
        splits=written,
        removed={"duplicates_of_test": duplicates, "bad_rows": skipped},
    )
    manifests.write_manifest(output, manifest)
    return manifest


def clear(output: str) -> None:
    """Remove an earlier data set from `output`, its manifest first. Other files stay."""
    if fs.is_folder(output):
        fs.remove(fs.join(output, manifests.MANIFEST_FILE))
        for name in fs.list_names(output):
            if name.endswith(".tfrecord") or name == manifests.PREPROCESS_FOLDER:
                fs.remove(fs.join(output, name))
