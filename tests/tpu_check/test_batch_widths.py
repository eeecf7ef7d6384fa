"""Batches of known lengths of texts, without the texts."""

import json

import numpy as np
import pytest

from trainer.data import manifests, records, widths
from trainer.tpu_check import batch_widths, estimate


def test_the_lengths_are_those_of_the_train_splits():
    counts = json.loads(batch_widths.LENGTHS.read_text())
    assert {name: sum(of_lengths) for name, of_lengths in counts.items()} == {"imdb": 19902, "movie_snippets": 8484}
    assert list(counts) == list(estimate.DATA_SETS)
    for name, seq_length in estimate.DATA_SETS.items():
        assert len(counts[name]) > seq_length


@pytest.mark.parametrize(("pad_multiple", "found"), [(64, [64]), (16, [16, 32, 48, 64]), (48, [48, 64])])
def test_batches_have_their_own_widths_and_the_same_tokens(pad_multiple, found):
    one = batch_widths.count_batches("movie_snippets", 64, 64, 32)
    counted = batch_widths.count_batches("movie_snippets", 64, pad_multiple, 32)
    assert counted["tokens"] == one["tokens"]
    assert [width for width, _ in counted["batches"]] == found
    assert sum(count for _, count in counted["batches"]) == -(-3 * 8484 // 32)
    assert counted["tokens"] < sum(32 * width * count for width, count in counted["batches"])


def test_tokens_are_counted_as_a_row_has_them(prepared, tmp_path, monkeypatch):
    manifest = manifests.read_manifest(str(prepared))
    columns = records.read_shards(str(prepared), manifest.splits["train"].shards, manifest)
    (tmp_path / "lengths.json").write_text(json.dumps({"own": np.bincount(columns.lengths()).tolist()}))
    monkeypatch.setattr(batch_widths, "LENGTHS", tmp_path / "lengths.json")
    rows = np.minimum(columns.lengths() + 2, 24).sum()
    assert batch_widths.count_batches("own", 24, 24, 7) == {"tokens": 3 * rows, "batches": [[24, -(-3 * 240 // 7)]]}


def count_packed_rows(tokens, seq_length):
    """The rows that texts of these lengths fill: the longest first, each in the first row that it fits in."""
    rows = []
    for length in sorted(tokens, reverse=True):
        fitting = [row for row, used in enumerate(rows) if used + length <= seq_length]
        if fitting:
            rows[fitting[0]] += length
        else:
            rows.append(length)
    return len(rows)


def measure_padding(data_set, seq_length, replicas, grouped):
    """The shares of padding in batches of 128: with the widths of a TPU, and with packing, several texts a row.

    All replicas run one program, so that packing has as many rows on each: those of the fullest, rounded up to one of
    four numbers, as there are four widths.
    """
    tokens = batch_widths.count_tokens(data_set, seq_length, 128, group_by_length=grouped)
    batches = tokens[: len(tokens) // 128 * 128].reshape(-1, replicas, 128 // replicas)
    pad_multiple = widths.coarse_pad_multiple(seq_length, 8)
    padded = widths.pad_lengths(batches.max(axis=(1, 2)), seq_length, pad_multiple).sum() * 128
    filled = np.array([max(count_packed_rows(share, seq_length) for share in batch) for batch in batches])
    packed = widths.pad_lengths(filled, 128 // replicas, 32 // replicas).sum() * replicas * seq_length
    return 1 - batches.sum() / padded, 1 - batches.sum() / packed


@pytest.mark.parametrize("replicas", [1, 8])
@pytest.mark.parametrize(("data_set", "seq_length"), estimate.DATA_SETS.items())
def test_packing_would_leave_more_padding_than_widths(data_set, seq_length, replicas, monkeypatch):
    """Texts of a batch are about as long as each other, and few. docs/tpu.md has the figures."""
    monkeypatch.setattr(batch_widths, "EPOCHS", 1)
    padded, packed = measure_padding(data_set, seq_length, replicas, grouped=True)
    _, shuffled = measure_padding(data_set, seq_length, replicas, grouped=False)
    print(f"{data_set}, {replicas}: widths {padded:.1%}, packed {packed:.1%}, packed without groups {shuffled:.1%}")
    assert padded < packed
    # All but this: a mix of short and long texts, all on one core.
    assert padded < shuffled or (data_set, replicas) == ("movie_snippets", 1)
