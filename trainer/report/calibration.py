"""The section on calibration: whether what the model is sure of is right as often as it says.

The error and the temperature are those of evals.calibration.
"""

import dataclasses
from typing import Any

import numpy as np

from trainer.evals import calibration
from trainer.report import charts
from trainer.report.facts import ReportFacts
from trainer.report.page import Cell, Figure, Section, Table, number, percent


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Groups of equal width, without empty ones."""

    confidence: np.ndarray  # float64 [groups]: the mean probability of what is said.
    accuracy: np.ndarray  # float64 [groups]: the share that is right.
    examples: np.ndarray  # int64 [groups]
    error: float  # The expected calibration error.


def measure(logits: np.ndarray, labels: np.ndarray) -> Reliability:
    """The reliability of softmax(`logits`), float [N, C], for int [N] labels."""
    confidence, accuracy, examples = calibration.group_by_confidence(logits, labels)
    error = calibration.expected_calibration_error(logits, labels)
    return Reliability(confidence, accuracy, examples, error)


def section(facts: ReportFacts) -> Section | None:
    if not facts.by_class or "validation" not in facts.predictions:
        return None
    validation, test = facts.predictions["validation"], facts.predictions["test"]
    kept = facts.result.get("calibration") or {}
    temperature = kept.get("temperature") or calibration.fit_temperature(validation.logits, validation.labels)
    before, after = measure(test.logits, test.labels), measure(test.logits / temperature, test.labels)
    confidence = float(np.sum(before.confidence * before.examples) / len(test.labels))
    accuracy = float(np.sum(before.accuracy * before.examples) / len(test.labels))
    rows = [
        [Cell("as trained"), number(1.0), number(before.error, "calibration.before")],
        [Cell("after temperature"), number(temperature), number(after.error, "calibration.after")],
    ]
    where = "The scores of the export have it." if kept.get("applied") else "The scores of the export do not have it."
    return Section(
        "calibration",
        "Is it as sure as it should be?",
        [describe(confidence, accuracy, temperature, before.error, after.error)],
        figures=[
            Figure(
                draw_reliability(before, after),
                "Test's examples in groups by the probability of the predicted class, and the share of each that is "
                "right. The larger the dot, the more examples. On the dotted line, a probability means what it says.",
            )
        ],
        tables=[Table("Expected calibration error on test", ["", "temperature", "error"], rows)],
        method=[
            f"Error: {calibration.BINS} groups of equal width. The temperature, which the logits are divided by, was "
            f"fitted on validation; it changes no prediction. {where}"
        ],
    )


def describe(confidence: float, accuracy: float, temperature: float, before: float, after: float) -> str:
    """What the figures say, as sentences."""
    said = f"On test it is right {percent(accuracy)} of the time, and on average {percent(confidence)} sure."
    gap = confidence - accuracy
    if abs(gap) < 0.01:
        verdict = "Taken together, its probabilities can be read as they are."
    elif gap > 0:
        verdict = "It is over-confident: a high probability means less than it says."
    else:
        verdict = "It is under-confident: it is right more often than it says."
    helps = (
        f"Divided by a temperature of {temperature:.2f}, its calibration error falls from {before:.4f} to {after:.4f}."
        if after < before
        else f"A temperature ({temperature:.2f}) would not lower the error of {before:.4f} (it becomes {after:.4f})."
    )
    return f"{said} {verdict} {helps}"


def draw_reliability(before: Reliability, after: Reliability) -> str:
    def plot(axes: Any) -> None:
        low = max(0.0, float(min(before.confidence.min(), after.confidence.min(), before.accuracy.min())) - 0.05)
        axes.plot([low, 1], [low, 1], color=charts.MUTED, linestyle=":", linewidth=1)
        for found, color, style, label in (
            (before, charts.WARM, "-", "as trained"),
            (after, charts.ACCENT, "--", "after temperature"),
        ):
            axes.plot(found.confidence, found.accuracy, style, color=color, label=label, linewidth=1)
            areas = 8 + 150 * found.examples / found.examples.sum()
            axes.scatter(found.confidence, found.accuracy, s=areas, color=color, edgecolors="none")
        axes.set_xlabel("mean probability")
        axes.set_ylabel("share that is right")
        axes.legend(loc="upper left")

    return charts.draw("reliability", "Reliability", plot)
