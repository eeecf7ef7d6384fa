"""Which words mattered: a text is scored again without each of them (occlusion).

Words are left out, not masked: encoders of every family know how a shorter text reads, and not all have a mask. A text
of many words is scored without groups of neighbors, so that each costs the same (Zeiler and Fergus, "Visualizing and
Understanding Convolutional Networks", ECCV 2014; Li et al., "Understanding Neural Networks through Representation
Erasure", 2016).
"""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

# Tokens that are scored for a text, in all its variants together, and for all texts.
TOKENS_PER_TEXT = 6_000
TOKENS_OF_ALL = 60_000
# CJK characters, which no space separates, are words by themselves, as BERT's tokenizers read them.
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\s\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+"
)


@dataclasses.dataclass(frozen=True)
class Occlusion:
    """A row of test, in pieces that make its text again; of each what leaving it out takes from the model's answer."""

    row: int
    pieces: tuple[str, ...]
    # The fall of the probability of the predicted class, or of the number; NaN for what the model does not read.
    effects: tuple[float, ...]


def split_words(text: str) -> list[tuple[int, int]]:
    """[start, end) of each word in the text."""
    return [match.span() for match in _WORD.finditer(text)]


def visible_positions(length: int, budget: int, truncation: str) -> np.ndarray:
    """The positions of a text's tokens that the model reads, int64, as tokenization.truncate keeps them."""
    kept = min(length, budget)
    first = {"head": kept, "tail": 0, "head_tail": (kept + 1) // 2}[truncation]
    return np.concatenate([np.arange(first), np.arange(length - (kept - first), length)])


@dataclasses.dataclass(frozen=True)
class Plan:
    """The variants of one text: first itself, then without each group of words."""

    groups: tuple[tuple[int, int], ...]  # [first word, last word + 1) of each group.
    rows: tuple[np.ndarray, ...]  # int32 [tokens] of each variant: 1 + the number of groups.


def plan_variants(words: Sequence[np.ndarray], budget: int, truncation: str) -> Plan:
    """`words` are the tokens of each word, int32. `budget` is how many tokens of a text the model reads."""
    tokens = np.concatenate([*words, np.zeros(0, np.int32)]).astype(np.int32)
    owners = np.repeat(np.arange(len(words)), [len(word) for word in words])
    seen = visible_positions(len(tokens), budget, truncation)
    tokens, owners = tokens[seen], owners[seen]
    variants = max(1, TOKENS_PER_TEXT // max(len(tokens), 1))
    group_tokens = -(-len(tokens) // variants)
    groups: list[tuple[int, int]] = []
    size = 0
    for word in np.unique(owners).tolist():
        # A gap of unread words ends a group.
        if groups and size < group_tokens and groups[-1][1] == word:
            groups[-1] = groups[-1][0], word + 1
        else:
            groups.append((word, word + 1))
            size = 0
        size += int(np.sum(owners == word))
    rows = [tokens, *(tokens[(owners < first) | (owners >= last)] for first, last in groups)]
    return Plan(tuple(groups), tuple(rows))


def describe_effects(
    row: int, text: str, spans: Sequence[tuple[int, int]], plan: Plan, scores: np.ndarray
) -> Occlusion:
    """The occlusion of a text. `spans` are of split_words; `scores`: float [variants], of the predicted class."""
    pieces, effects, position = [], [], 0
    for (first, last), score in zip(plan.groups, scores[1:], strict=True):
        start, end = spans[first][0], spans[last - 1][1]
        if position < start:
            pieces.append(text[position:start])
            effects.append(np.nan)
        pieces.append(text[start:end])
        effects.append(float(scores[0] - score))
        position = end
    if position < len(text):
        pieces.append(text[position:])
        effects.append(np.nan)
    return Occlusion(row, tuple(pieces), tuple(effects))
