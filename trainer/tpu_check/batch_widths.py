"""How wide the batches of known data sets are, on which the cost of their padding depends.

text_lengths.json has the train splits of IMDB and of the movie snippets as scripts/prepare_data.py makes them for
minilm, which has BERT's uncased vocabulary. Entry n of a list counts the texts of n tokens, without special ones, and
the last entry those of as many or more.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data import batching, manifests, tokenization, widths

LENGTHS = Path(__file__).with_name("text_lengths.json")
EPOCHS = 3


def count_tokens(data_set: str, seq_length: int, batch_size: int, *, group_by_length: bool = True) -> np.ndarray:
    """int64 [rows]: the tokens of each text of EPOCHS epochs without padding, in the order of training."""
    counts = json.loads(LENGTHS.read_text(encoding="utf-8"))[data_set]
    lengths = np.repeat(np.arange(len(counts)), counts)
    order = batching.ShuffleOrder(seed=0, group_by_length=group_by_length, shuffle_examples=len(lengths))
    shard = manifests.Shard("all", examples=len(lengths), bytes=0, crc32c=0)
    pools = itertools.islice(batching.iterate_pools([shard], order), EPOCHS)
    rows = np.concatenate([batching.shuffle_pool(lengths, pool, order, batch_size) for pool in pools])
    tokens: np.ndarray = np.minimum(lengths[rows] + tokenization.special_token_count(1), seq_length)
    return tokens


def count_batches(data_set: str, seq_length: int, pad_multiple: int, batch_size: int) -> dict[str, Any]:
    """Return {"tokens": those of EPOCHS epochs without padding, "batches": pairs of a width and its number of batches}.

    `batch_size` is the global one. Batches are made as in training, with data.group_by_length.
    """
    tokens = count_tokens(data_set, seq_length, batch_size)
    longest = np.maximum.reduceat(tokens, np.arange(0, len(tokens), batch_size))
    found = np.unique(widths.pad_lengths(longest, seq_length, pad_multiple), return_counts=True)
    return {
        "tokens": int(tokens.sum()),
        "batches": [[int(width), int(count)] for width, count in zip(*found, strict=True)],
    }
