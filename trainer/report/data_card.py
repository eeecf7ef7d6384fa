"""The section on the data: counts, lengths, copies, near-duplicates across the splits, contradicting labels."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer.data.records import Columns
from trainer.data.splits import hash_text
from trainer.report import charts, duplicates
from trainer.report.facts import ReportFacts
from trainer.report.page import Cell, Figure, Passage, Piece, Section, Table, number, percent

MAX_CLASSES = 30
MAX_EXAMPLES = 5
MAX_SHOWN_CHARACTERS = 300


def section(facts: ReportFacts) -> Section:
    manifest = facts.manifest
    decision = manifest.findings.label_decision
    sentences = [_describe_size(facts), _describe_truncation(facts), f"Labels: {decision}." if decision else ""]
    tables = [_counts_table(facts)]
    contradictions = None if facts.manifest.kind == "regression" else find_contradictions(facts.columns)
    sentences.append(_describe_copies(facts, contradictions))
    nearest = _near_duplicates(facts)
    sentences += [_describe_near(name, found, len(facts.columns[name])) for name, found in nearest.items()]
    method = []
    if nearest:
        method = [
            f"Near-duplicates: MinHash over sequences of {duplicates.SEQUENCE_TOKENS} tokens, then the exact share of "
            f"sequences that two texts have in common; counted from {percent(duplicates.MIN_SIMILARITY, 0)}."
        ]
    if len(facts.columns.get("train", ())) < manifest.splits["train"].examples:
        method.append(f"Train: its first {len(facts.columns['train']):,} examples were looked at.")
    return Section(
        "data",
        "The data",
        sentences,
        figures=[Figure(draw_lengths(facts), "Tokens of a text, in groups that double. The dotted line is what fits.")],
        tables=tables,
        passages=[*_contradiction_passages(facts, contradictions or []), *_near_passages(facts, nearest)],
        method=method,
    )


def _describe_size(facts: ReportFacts) -> str:
    manifest = facts.manifest
    total = sum(split.examples for split in manifest.splits.values())
    texts = "pairs of texts" if manifest.texts == 2 else "texts"
    what = f"{len(manifest.labels)} classes" if manifest.labels else "numbers"
    return f"{manifest.task}: {total:,} {texts} with labels of {what}, divided into train, validation and test."


def _describe_truncation(facts: ReportFacts) -> str:
    fits = facts.readable_tokens
    lengths = np.concatenate([columns.lengths() for columns in facts.columns.values()])
    share = float(np.mean(lengths > fits))
    if not share:
        return f"Every text fits: the model reads {fits:,} tokens."
    longer = "of the texts are longer than what the model reads"
    advice = " A larger data.seq_length may be worth its time." if share > 0.2 else ""
    return f"{percent(share)} {longer}, {fits:,} tokens; the rest of them is left out.{advice}"


def _counts_table(facts: ReportFacts) -> Table:
    splits = facts.manifest.splits
    rows = [[Cell("examples"), *(number(split.examples) for split in splits.values())]]
    counts = {name: [split.label_counts.get(name, 0) for split in splits.values()] for name in facts.manifest.labels}
    shown = sorted(counts, key=lambda name: -sum(counts[name]))[:MAX_CLASSES] if len(counts) > MAX_CLASSES else counts
    rows += [[Cell(name), *map(number, counts[name])] for name in shown]
    for percentile, name in (("50", "median tokens"), ("90", "tokens of 90 % are at most"), ("100", "most tokens")):
        found = [split.length_percentiles.get(percentile) for split in splits.values()]
        if all(value is not None for value in found):
            rows.append([Cell(name), *map(number, found)])
    which = f" (the {MAX_CLASSES} largest of {len(counts):,} classes)" if len(counts) > MAX_CLASSES else ""
    return Table(f"Examples by split and class{which}", ["", *splits], rows)


def draw_lengths(facts: ReportFacts) -> str:
    """The lengths of all splits, in groups of powers of 2."""
    total: collections.Counter[int] = collections.Counter()
    for split in facts.manifest.splits.values():
        total.update({int(bound): count for bound, count in split.length_histogram.items()})
    bounds = [1 << power for power in range(64) if min(total, default=0) <= 1 << power <= max(total, default=0)]

    def plot(axes: Any) -> None:
        axes.bar(range(len(bounds)), [total[bound] for bound in bounds], color=charts.ACCENT, width=0.8)
        labels = [f"{bound // 2 + 1 if bound > 1 else bound}" for bound in bounds]
        axes.set_xticks(range(len(bounds)), labels)
        axes.grid(axis="x", visible=False)
        axes.set_xlabel("tokens from")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        at = np.log2(facts.readable_tokens / bounds[0]) + 0.5 if bounds and bounds[0] else None
        if at is not None and at < len(bounds):
            axes.axvline(at, color=charts.WARM, linestyle=":")

    return charts.draw("lengths", "Lengths", plot)


def find_contradictions(splits: Mapping[str, Columns]) -> list[list[tuple[str, int]]]:
    """The texts that have several labels: for each its rows, as (split, row). All need their texts."""
    places: dict[int, list[tuple[str, int]]] = collections.defaultdict(list)
    for name, columns in splits.items():
        texts: Sequence[str] = columns.texts or []
        for row, pair in enumerate(zip(texts, columns.texts_b or [""] * len(texts), strict=True)):
            places[hash_text(*pair)].append((name, row))
    return [
        rows
        for rows in places.values()
        if len(rows) > 1 and len({np.asarray(splits[name].labels[row]).tobytes() for name, row in rows}) > 1
    ]


def _describe_copies(facts: ReportFacts, contradictions: Sequence[Any] | None) -> str:
    """`contradictions` is None where nobody looked: two numbers of a text need not contradict each other."""
    copies = facts.manifest.findings.copies
    removed = sum(facts.manifest.removed.values())
    said = f"{copies:,} rows repeat a text" if copies else "No text occurs twice"
    left_out = f"; {removed:,} rows were left out at preparation" if removed else ""
    if contradictions is None:
        return f"{said}{left_out}."
    if not contradictions:
        return f"{said}{left_out}. No text has two different labels."
    count = len(contradictions)
    return (
        f"{said}{left_out}. {count:,} text{'s have' if count > 1 else ' has'} different labels in different rows: no "
        "model can be right about all of them."
    )


def describe_coverage(facts: ReportFacts) -> list[str]:
    """What of the data limits the model, as sentences."""
    truncated = _describe_truncation(facts)
    rare = [name for name, count in facts.manifest.splits["train"].label_counts.items() if count < 20]
    few = f"Train has fewer than 20 examples of {len(rare):,} of its classes, such as {rare[0]!r}." if rare else ""
    return [sentence for sentence in (truncated, few) if sentence]


def _near_duplicates(facts: ReportFacts) -> dict[str, duplicates.NearDuplicates]:
    """Of validation and test, those with one in train. Single texts only; {} for pairs."""
    if "train" not in facts.columns or facts.manifest.texts != 1:
        return {}
    train = facts.columns["train"].tokens
    return {
        name: duplicates.find_near_duplicates(facts.columns[name].tokens, train)
        for name in ("validation", "test")
        if name in facts.columns
    }


def _describe_near(name: str, found: duplicates.NearDuplicates, examples: int) -> str:
    count = len(found.rows)
    if not count:
        return f"No text of {name} is almost one of train."
    weight = " Metrics on such texts measure memory: look at them." if count > 0.01 * examples else ""
    return (
        f"{count:,} of the {examples:,} texts of {name} ({percent(count / examples)}) are almost one of train.{weight}"
    )


def _label(facts: ReportFacts, name: str, row: int) -> str:
    label, classes = facts.columns[name].labels[row], facts.manifest.labels
    if np.ndim(label):  # Several labels: which of them apply.
        return ", ".join(classes[i] for i in np.flatnonzero(label)) or "none"
    return classes[int(label)] if facts.by_class else str(label)


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]} ..."


def _passage(said: Sequence[str], *texts: str) -> Passage:
    return Passage(said, [Piece("\n\n".join(map(_shorten, texts)))])


def _contradiction_passages(facts: ReportFacts, contradictions: Sequence[list[tuple[str, int]]]) -> list[Passage]:
    passages = []
    for rows in contradictions[:MAX_EXAMPLES]:
        texts = facts.columns[rows[0][0]].texts
        assert texts is not None
        said = [f"{name}: {_label(facts, name, row)}" for name, row in rows[:MAX_EXAMPLES]]
        passages.append(_passage(["different labels", *said], texts[rows[0][1]]))
    return passages


def _near_passages(facts: ReportFacts, nearest: Mapping[str, duplicates.NearDuplicates]) -> list[Passage]:
    passages = []
    for name, found in nearest.items():
        train, own = facts.columns["train"].texts, facts.columns[name].texts
        assert train is not None
        assert own is not None
        for i in np.argsort(-found.similarities, kind="stable")[: MAX_EXAMPLES // 2]:
            row, other = int(found.rows[i]), int(found.others[i])
            labels = f"{name}: {_label(facts, name, row)}, train: {_label(facts, 'train', other)}"
            said = [f"almost the same, {percent(float(found.similarities[i]), 0)} in common", labels]
            passages.append(_passage(said, own[row], train[other]))
    return passages
