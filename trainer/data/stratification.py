"""A part of texts with several labels in which each label has its share.

Iterative stratification (Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data", ECML PKDD
2011): labels are handled from the rarest to the most frequent, and a text goes to the part that lacks its label most.
So are combinations of labels (Szymanski and Kajdanowicz, PMLR 74, 2017), those that are frequent enough to be divided.
"""

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from trainer.data.label_sets import LabelSet

# First this share of the rows to draw is drawn in excess, then it is missing, then neither: each time those texts are
# moved that improve the labels' shares most.
SWAPPED_SHARE = 0.05
# The two parts of the texts, and what a text is in before it has one.
_KEPT, _DRAWN, _NEITHER = 0, 1, -1


def draw_texts(
    sets: Sequence[LabelSet], texts: np.ndarray, keys: np.ndarray, fraction: float, max_share: float
) -> np.ndarray:
    """Which texts are drawn, bool [texts]: `fraction` of all rows, and of the rows of each label.

    `sets` are the labels of each row, `texts` (integers [rows]) the number of its text, which copies share. `keys`
    (uint64 [texts]) decide between equals. A text with more copies than `max_share` of the rows to draw is not drawn,
    and of each label at least one text is not. The time grows faster than the rows do: 100,000 take seconds.
    """
    sizes = np.bincount(texts, minlength=len(keys))
    counts, members = _count_strata(sets, texts, keys, fraction)
    too_many = np.flatnonzero(sizes > max(1, int(len(sets) * fraction * max_share)))
    part, lacking = _divide(counts, members, sizes, too_many.tolist(), fraction)
    target = round(len(sets) * fraction)
    swapped = math.ceil(target * SWAPPED_SHARE)
    for rows_to_draw in (target + swapped, target - swapped, target):
        _correct_rows(part, sizes, counts, lacking, rows_to_draw)
    for found in members.values():
        if not any(part[text] == _KEPT for text in found):
            part[found[0]] = _KEPT
    return part == _DRAWN


def _count_strata(
    sets: Sequence[LabelSet], texts: np.ndarray, keys: np.ndarray, fraction: float
) -> tuple[list[Counter[int]], dict[int, list[int]]]:
    """(of each text, its rows by stratum; of each stratum, its texts in the order of `keys`)."""
    strata_of = _number_strata(sets, fraction)
    counts: list[Counter[int]] = [Counter() for _ in keys]
    members: dict[int, list[int]] = defaultdict(list)
    for row in np.argsort(keys[texts], kind="stable").tolist():
        text = int(texts[row])
        for stratum in strata_of[sets[row]]:
            if stratum not in counts[text]:
                members[stratum].append(text)
            counts[text][stratum] += 1
    return counts, members


def _divide(
    counts: Sequence[Mapping[int, int]],
    members: Mapping[int, Sequence[int]],
    sizes: np.ndarray,
    kept_texts: Sequence[int],
    fraction: float,
) -> tuple[np.ndarray, dict[int, float]]:
    """(the part of each text, int8; the rows of each stratum that the drawn part lacks), with the rarest stratum first.

    `kept_texts` are not drawn. `counts` and `members` are of _count_strata, `sizes` the rows of each text.
    """
    remaining = {stratum: sum(counts[text][stratum] for text in found) for stratum, found in members.items()}
    # The rows that each part still lacks, of each stratum and of all.
    shares = (1 - fraction, fraction)
    lacking = [{stratum: count * share for stratum, count in remaining.items()} for share in shares]
    lacking_rows = [int(sizes.sum()) * share for share in shares]
    part = np.full(len(sizes), _NEITHER, np.int8)
    # A stratum has an entry for each number of rows that it had; the one with its present number is valid.
    queue = [(count, stratum) for stratum, count in sorted(remaining.items())]
    heapq.heapify(queue)

    def assign(text: int, to: int) -> None:
        part[text] = to
        lacking_rows[to] -= int(sizes[text])
        for stratum, count in counts[text].items():
            lacking[to][stratum] -= count
            remaining[stratum] -= count
            if remaining[stratum]:
                heapq.heappush(queue, (remaining[stratum], stratum))

    for text in kept_texts:
        assign(text, _KEPT)
    while queue:
        count, stratum = heapq.heappop(queue)
        if count != remaining[stratum]:
            continue
        for text in members[stratum]:
            if part[text] == _NEITHER:
                kept, drawn = ((lacking[to][stratum], lacking_rows[to]) for to in (_KEPT, _DRAWN))
                assign(text, _DRAWN if drawn > kept else _KEPT)
    return part, lacking[_DRAWN]


def _correct_rows(
    part: np.ndarray, sizes: np.ndarray, counts: Sequence[Mapping[int, int]], lacking: dict[int, float], target: int
) -> None:
    """Move texts in `part`, int8 [texts], until `target` rows are drawn.

    Rounding the share of every stratum adds up to some rows too many, or too few. Moved is what reduces the squares of
    `lacking` most, the rows of each stratum that the drawn part lacks. `sizes` are the rows of each text, `counts`
    those of each of its strata.
    """
    missing = target - int(sizes[part == _DRAWN].sum())
    sign, source = (1, _KEPT) if missing > 0 else (-1, _DRAWN)

    def gain(text: int) -> float:
        total = 0.0  # Not by sum(), which rounds in another way from Python 3.12 on.
        for stratum, count in counts[text].items():
            total += count * (2 * sign * lacking[stratum] - count)
        return total

    candidates = np.flatnonzero((part == source) & (sizes <= abs(missing))).tolist()
    queue = [(-gain(text), text) for text in candidates] if missing else []
    heapq.heapify(queue)
    while missing and queue:
        text = queue[0][1]
        # A gain only falls with other moves: a text is the best if its own, computed again, is still the largest.
        loss = -gain(text)
        if any(loss > other for other, _ in queue[1:3]):
            heapq.heapreplace(queue, (loss, text))
            continue
        heapq.heappop(queue)
        if sizes[text] <= abs(missing):
            part[text] = 1 - source
            missing -= sign * int(sizes[text])
            for stratum, count in counts[text].items():
                lacking[stratum] -= sign * count


def _number_strata(sets: Sequence[LabelSet], fraction: float) -> dict[LabelSet, tuple[int, ...]]:
    """The strata of each set: its labels, and the set itself if `fraction` of its rows is at least one.

    So are rows without labels. Labels come first, then sets, each by alphabet: the order of rows makes no difference.
    """
    rows = Counter(sets)
    names = sorted({name for names in rows for name in names})
    number: dict[object, int] = {name: index for index, name in enumerate(names)}
    for names_of_set in sorted(rows):
        if not names_of_set or rows[names_of_set] * fraction >= 1:
            number[names_of_set] = len(number)
    return {
        names_of_set: tuple(number[key] for key in (*names_of_set, names_of_set) if key in number)
        for names_of_set in rows
    }
