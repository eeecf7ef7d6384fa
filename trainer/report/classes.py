"""The section by class: scores with intervals, the confusion, precision against recall, ROC."""

from typing import Any

import numpy as np
import sklearn.metrics

from trainer.evals import intervals
from trainer.report import charts
from trainer.report.facts import ReportFacts
from trainer.report.page import Cell, Figure, Section, Table, number

# Of more classes, the table has those of lowest F1, and the confusion is a list of the most frequent mistakes.
MAX_CLASSES = 30
MAX_CONFUSION = 12
MAX_MISTAKES = 20
MAX_CURVES = 5
_COLORS = (charts.ACCENT, charts.WARM, charts.INK, charts.MUTED, charts.LINE)


def section(facts: ReportFacts) -> Section | None:
    described = facts.result.get("test_classes")
    if not described:
        return None
    tables = [_class_table(facts, described["by_class"])]
    confusion = described.get("confusion")  # None where an example may have several labels.
    if confusion:
        few = len(facts.manifest.labels) <= MAX_CONFUSION
        tables.append(_confusion_table(facts, confusion) if few else _mistakes_table(confusion))
    figures = []
    if len(facts.manifest.labels) <= MAX_CURVES and np.isfinite(facts.predictions["test"].scores).all():
        figures = [
            Figure(
                _draw_curves(facts, "precision-recall"),
                "For each threshold of a class's probability: the share of its examples that are found, and the share "
                "of what is found that is right. The nearer to the upper right, the better.",
            ),
            Figure(
                _draw_curves(facts, "roc"),
                "For each threshold: the share of other examples that are taken for the class, and the share of the "
                "class that is found. The nearer to the upper left, the better; the dotted line is chance.",
            ),
        ]
    return Section(
        "classes",
        "By class",
        [describe_classes(described["by_class"], confusion)],
        figures=figures,
        tables=tables,
        method=["Intervals: 95 %, percentile bootstrap, 1,000 samples."] if facts.by_class else [],
    )


def describe_classes(by_class: dict[str, Any], confusion: dict[str, dict[str, int]] | None) -> str:
    """The weakest class and the most frequent mistake, as sentences."""
    weakest = min(by_class, key=lambda name: by_class[name]["f1"])
    sentence = f"The class with the lowest F1 is {weakest!r} ({by_class[weakest]['f1']:.4f})."
    if confusion is None:
        return sentence
    mistakes = _find_mistakes(confusion)
    if not mistakes:
        return f"{sentence} There are no mistakes."
    count, name, said = mistakes[0]
    return f"{sentence} The most frequent mistake is to say {said!r} where {name!r} is right: {count:,} times."


def _find_mistakes(confusion: dict[str, dict[str, int]]) -> list[tuple[int, str, str]]:
    """(examples, their class, the predicted one), the most frequent first."""
    pairs = [(count, name, said) for name, row in confusion.items() for said, count in row.items() if name != said]
    return sorted((pair for pair in pairs if pair[0]), key=lambda pair: -pair[0])


def _class_table(facts: ReportFacts, by_class: dict[str, Any]) -> Table:
    spans = {}
    if facts.by_class:
        test = facts.predictions["test"]
        spans = intervals.class_intervals(test.labels, test.predicted, len(facts.manifest.labels))
    order = list(facts.manifest.labels)
    shown = order if len(order) <= MAX_CLASSES else sorted(order, key=lambda name: by_class[name]["f1"])[:MAX_CLASSES]
    rows = []
    for name in shown:
        index, values = order.index(name), by_class[name]
        cells = [
            number(
                values[metric],
                f"class.{index}.{metric}",
                intervals.describe(spans[metric][index]) if metric in spans else "",
            )
            for metric in ("precision", "recall", "f1")
        ]
        rows.append([Cell(name), *cells, number(values["support"], f"class.{index}.support")])
    which = f", the {MAX_CLASSES} of {len(order):,} classes with the lowest F1" if len(order) > MAX_CLASSES else ""
    return Table(f"Test by class{which}", ["", "precision", "recall", "F1", "examples"], rows)


def _confusion_table(facts: ReportFacts, confusion: dict[str, dict[str, int]]) -> Table:
    labels = facts.manifest.labels
    rows = []
    for i, name in enumerate(labels):
        counts = [confusion[name].get(said, 0) for said in labels]
        whole = max(sum(counts), 1)
        cells = [Cell(f"{count:,}", f"confusion.{i}.{j}", shade=0.6 * count / whole) for j, count in enumerate(counts)]
        rows.append([Cell(name), *cells])
    return Table("Test by class (rows) and predicted class (columns)", ["", *labels], rows)


def _mistakes_table(confusion: dict[str, dict[str, int]]) -> Table:
    rows = [[Cell(name), Cell(said), number(count)] for count, name, said in _find_mistakes(confusion)[:MAX_MISTAKES]]
    return Table("The most frequent mistakes on test", ["class", "predicted", "examples"], rows)


def _draw_curves(facts: ReportFacts, kind: str) -> str:
    predictions = facts.predictions["test"]
    count = len(facts.manifest.labels)
    shown = [facts.positive] if count == 2 and facts.positive is not None else list(range(count))

    def plot(axes: Any) -> None:
        for index, color in zip(shown, _COLORS, strict=False):
            labels, scores = predictions.labels, predictions.scores[:, index]
            truth = labels[:, index].astype(bool) if labels.ndim == 2 else labels == index
            if not 0 < truth.sum() < len(truth):
                continue
            if kind == "roc":
                x, y, _ = sklearn.metrics.roc_curve(truth, scores)
            else:
                y, x, _ = sklearn.metrics.precision_recall_curve(truth, scores)
            axes.plot(*charts.thin(x, y), color=color, label=facts.manifest.labels[index][:24])
        if kind == "roc":
            axes.plot([0, 1], [0, 1], color=charts.MUTED, linestyle=":", linewidth=1)
        axes.set_xlabel("false positive rate" if kind == "roc" else "recall")
        axes.set_ylabel("recall" if kind == "roc" else "precision")
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.legend(loc="lower right" if kind == "roc" else "lower left")

    return charts.draw(kind, "ROC" if kind == "roc" else "Precision and recall", plot)
