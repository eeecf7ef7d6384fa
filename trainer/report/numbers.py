"""The section for labels that are numbers: predicted against true, and the error by length."""

from typing import Any

import numpy as np

from trainer.report import charts
from trainer.report.facts import ReportFacts
from trainer.report.page import Figure, Section

MAX_DOTS = 1500


def section(facts: ReportFacts) -> Section | None:
    if facts.manifest.kind != "regression":
        return None
    figures = [
        Figure(draw_scatter(facts), "Each dot is an example of test. On the dotted line, the model has the label."),
        Figure(draw_residuals(facts), "The error of each example, predicted less true, by the length of its text."),
    ]
    predictions = facts.predictions["test"]
    return Section(
        "numbers",
        "Predicted and true numbers",
        [describe(predictions.labels, predictions.logits[:, 0])],
        figures=figures,
        method=[f"Drawn: at most {MAX_DOTS:,} examples, chosen by a fixed seed."],
    )


def describe(labels: np.ndarray, values: np.ndarray) -> str:
    """The typical error, and whether the predictions are biased or too close to the mean, as sentences.

    `labels` and `values`, the predictions, are float32 [N].
    """
    errors = values.astype(np.float64) - labels
    spread = float(values.std() / labels.std()) if labels.std() else 1.0
    typical = f"Half of the predictions are within {np.median(np.abs(errors)):.4g} of the label."
    lean = f"On average they are {abs(errors.mean()):.4g} too {'high' if errors.mean() > 0 else 'low'}."
    if spread < 0.8:
        return f"{typical} {lean} They are drawn to the mean: they spread {spread:.2f} times as far as the labels."
    return f"{typical} {lean}"


def _chosen(count: int) -> np.ndarray:
    rows: np.ndarray = np.sort(np.random.default_rng(0).permutation(count)[:MAX_DOTS])
    return rows


def draw_scatter(facts: ReportFacts) -> str:
    predictions = facts.predictions["test"]
    rows = _chosen(len(predictions.labels))

    def plot(axes: Any) -> None:
        x, y = predictions.labels[rows], predictions.logits[rows, 0]
        axes.plot(x, y, "o", color=charts.ACCENT, markersize=3, alpha=0.5, markeredgewidth=0)
        ends = [min(x.min(), y.min()), max(x.max(), y.max())]
        axes.plot(ends, ends, color=charts.MUTED, linestyle=":", linewidth=1)
        axes.set_xlabel("true")
        axes.set_ylabel("predicted")

    return charts.draw("scatter", "Predicted against true", plot)


def draw_residuals(facts: ReportFacts) -> str:
    predictions = facts.predictions["test"]
    rows = _chosen(len(predictions.labels))

    def plot(axes: Any) -> None:
        errors = predictions.logits[rows, 0] - predictions.labels[rows]
        lengths = facts.columns["test"].lengths()[rows]
        axes.plot(lengths, errors, "o", color=charts.ACCENT, markersize=3, alpha=0.5, markeredgewidth=0)
        axes.axhline(0, color=charts.MUTED, linestyle=":", linewidth=1)
        axes.set_xlabel("tokens")
        axes.set_ylabel("predicted less true")

    return charts.draw("residuals", "Errors by length", plot)
