"""The section on calibration: whether what the model is sure of is right as often as it says.

The expected calibration error: the examples in 15 groups by the probability of what the model says; of each the
distance of that probability from the share that is right, weighted by its examples (Guo et al., "On Calibration of
Modern Neural Networks", ICML 2017, which also has the temperature).
"""

import dataclasses
from typing import Any

import numpy as np
import scipy.optimize
import scipy.special

from trainer.report import charts
from trainer.report.facts import ReportFacts
from trainer.report.page import Cell, Figure, Section, Table, number, percent

BINS = 15


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Groups of equal width, without empty ones."""

    confidence: np.ndarray  # float64 [groups]: the mean probability of what is said.
    accuracy: np.ndarray  # float64 [groups]: the share that is right.
    examples: np.ndarray  # int64 [groups]
    error: float  # The expected calibration error.


def measure(logits: np.ndarray, labels: np.ndarray) -> Reliability:
    """The reliability of softmax(`logits`), float [N, C], for int [N] labels."""
    scores = scipy.special.softmax(logits.astype(np.float64), axis=1)
    confidence, right = scores.max(axis=1), scores.argmax(axis=1) == labels
    group = np.minimum((confidence * BINS).astype(int), BINS - 1)
    examples = np.bincount(group, minlength=BINS)
    filled = examples > 0
    mean_confidence = np.bincount(group, confidence, BINS)[filled] / examples[filled]
    accuracy = np.bincount(group, right, BINS)[filled] / examples[filled]
    error = float(np.sum(np.abs(mean_confidence - accuracy) * examples[filled]) / len(labels))
    return Reliability(mean_confidence, accuracy, examples[filled], error)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The number by which the logits are divided for the least cross-entropy. Between 1/20 and 20."""
    wide = logits.astype(np.float64)

    def loss(log_temperature: float) -> float:
        divided = scipy.special.log_softmax(wide / np.exp(log_temperature), axis=1)
        return -float(np.mean(divided[np.arange(len(labels)), labels]))

    found = scipy.optimize.minimize_scalar(loss, bounds=(-np.log(20), np.log(20)), method="bounded")
    return float(np.exp(found.x))


def section(facts: ReportFacts) -> Section | None:
    if not facts.by_class or "validation" not in facts.predictions:
        return None
    validation, test = facts.predictions["validation"], facts.predictions["test"]
    kept = facts.result.get("calibration") or {}
    temperature = kept.get("temperature") or fit_temperature(validation.logits, validation.labels)
    before, after = measure(test.logits, test.labels), measure(test.logits / temperature, test.labels)
    confidence = float(np.sum(before.confidence * before.examples) / len(test.labels))
    accuracy = float(np.sum(before.accuracy * before.examples) / len(test.labels))
    rows = [
        [Cell("as trained"), number(1.0), number(before.error, "calibration.before")],
        [Cell("after temperature"), number(temperature), number(after.error, "calibration.after")],
    ]
    where = "The export has it." if kept.get("temperature") else "It is for your own use: the export has it not."
    return Section(
        "calibration",
        "Is it as sure as it should be?",
        [describe(confidence, accuracy, temperature, before.error, after.error)],
        figures=[
            Figure(
                draw_reliability(before, after),
                "Test's examples in groups by the probability of what the model says, and the share of each that is "
                "right. The larger the dot, the more examples. On the dotted line, a probability means what it says.",
            )
        ],
        tables=[Table("Expected calibration error on test", ["", "temperature", "error"], rows)],
        method=[
            f"Error: {BINS} groups of equal width. The temperature, which the logits are divided by, was fitted on "
            f"validation; it changes no prediction. {where}"
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
