"""Batches of known lengths of texts, without the texts."""

import json

import numpy as np
import pytest

from trainer.data import manifests, records
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
