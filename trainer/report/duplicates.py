"""Texts of one split that are almost those of another: MinHash over sequences of tokens, then the exact similarity.

The similarity of two texts is that of their sets of token sequences (Jaccard): shared ones by all. MinHash keeps, for
each of 48 hash functions, the smallest hash of a text's sequences: two texts agree in one with the probability of their
similarity (Broder, "On the resemblance and containment of documents", 1997). Rows that agree in all 3 of any of 16
groups are compared exactly (Leskovec et al., "Mining of Massive Datasets", chapter 3). Of pairs of similarity 0.6, 98 %
are found, of 0.8 all but one in 100,000.
"""

import dataclasses

import numpy as np

from trainer.data.records import Ragged

SEQUENCE_TOKENS = 3
MIN_SIMILARITY = 0.6
_GROUPS, _GROUP_HASHES = 16, 3
# Rows that agree in more than this many hashes by chance alone are rare; it spares most exact comparisons.
_MIN_AGREEMENT = 0.4
# Of rows with the same group, such as thousands with one closing sentence, this many are compared.
_MAX_SAME_GROUP = 8


@dataclasses.dataclass(frozen=True)
class NearDuplicates:
    """The rows of a split with a near-duplicate in another, each with its most similar row there."""

    rows: np.ndarray  # int64 [P], ascending.
    others: np.ndarray  # int64 [P]: rows of the other split.
    similarities: np.ndarray  # float64 [P]


def find_near_duplicates(rows: Ragged, others: Ragged) -> NearDuplicates:
    """The near-duplicates of `rows` among `others`. Rows of less than SEQUENCE_TOKENS tokens have none."""
    hashes, other_hashes = _sequence_hashes(rows), _sequence_hashes(others)
    signatures, other_signatures = _signatures(hashes), _signatures(other_hashes)
    pairs = _candidate_pairs(signatures, other_signatures)
    pairs = pairs[(hashes.lengths()[pairs[:, 0]] > 0) & (other_hashes.lengths()[pairs[:, 1]] > 0)]
    agreement = np.mean(signatures[pairs[:, 0]] == other_signatures[pairs[:, 1]], axis=1)
    best: dict[int, tuple[float, int]] = {}
    for row, other in pairs[agreement >= _MIN_AGREEMENT].tolist():
        similarity = _jaccard(hashes.row(row), other_hashes.row(other))
        if similarity >= MIN_SIMILARITY and similarity > best.get(row, (0.0, 0))[0]:
            best[row] = similarity, other
    found = sorted(best)
    return NearDuplicates(
        np.array(found, np.int64),
        np.array([best[row][1] for row in found], np.int64),
        np.array([best[row][0] for row in found]),
    )


def _jaccard(a: np.ndarray, b: np.ndarray) -> float:
    a, b = np.unique(a), np.unique(b)
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


def _sequence_hashes(tokens: Ragged) -> Ragged:
    """The hash of every sequence of SEQUENCE_TOKENS tokens, uint32, row by row."""
    lengths = np.maximum(tokens.lengths() - (SEQUENCE_TOKENS - 1), 0)
    starts = np.cumsum([0, *lengths])
    positions = np.arange(starts[-1]) + np.repeat(tokens.starts[:-1] - starts[:-1], lengths)
    mixed = np.zeros(len(positions), np.uint64)
    for i in range(SEQUENCE_TOKENS):
        mixed = (mixed + tokens.values[positions + i].astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return Ragged((mixed >> np.uint64(32)).astype(np.uint32), starts)


def _signatures(hashes: Ragged) -> np.ndarray:
    """uint32 [rows, 48]: of each row the smallest hash by each function, 0 for rows without a sequence."""
    count = _GROUPS * _GROUP_HASHES
    rng = np.random.default_rng(0)
    factors = rng.integers(1 << 31, size=count, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    offsets = rng.integers(1 << 32, size=count, dtype=np.uint32)
    filled = np.flatnonzero(hashes.lengths())
    signatures = np.zeros((len(hashes.starts) - 1, count), np.uint32)
    if len(filled):
        for k in range(count):
            mixed = hashes.values * factors[k] + offsets[k]
            signatures[filled, k] = np.minimum.reduceat(mixed, hashes.starts[filled])
    return signatures


def _candidate_pairs(signatures: np.ndarray, others: np.ndarray) -> np.ndarray:
    """int64 [pairs, 2]: rows of both that agree in a group."""
    pairs = [np.zeros((0, 2), np.int64)]
    for group in range(_GROUPS):
        columns = slice(group * _GROUP_HASHES, (group + 1) * _GROUP_HASHES)
        keys, other_keys = _combine(signatures[:, columns]), _combine(others[:, columns])
        order = np.argsort(other_keys, kind="stable")
        ordered = other_keys[order]
        first = np.searchsorted(ordered, keys, "left")
        count = np.minimum(np.searchsorted(ordered, keys, "right") - first, _MAX_SAME_GROUP)
        rows = np.repeat(np.arange(len(keys)), count)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
        pairs.append(np.stack([rows, order[first[rows] + within]], axis=1))
    return np.unique(np.concatenate(pairs), axis=0)


def _combine(columns: np.ndarray) -> np.ndarray:
    """uint64 [rows]: one key of each row's hashes."""
    keys = np.zeros(len(columns), np.uint64)
    for column in columns.T:
        keys = (keys + column) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(31)
    return keys
