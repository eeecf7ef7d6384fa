"""The first section: what the model is, how good it is on test, and whether it is worth more than a bag of words."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from trainer.evals import baseline, intervals, metrics
from trainer.report.facts import ReportFacts
from trainer.report.page import Cell, Section, Table, number, percent


def section(facts: ReportFacts) -> Section:
    test = facts.result["test"]
    columns: dict[str, Mapping[str, Any]] = {facts.result["encoder"]["name"]: test}
    if facts.baseline is not None:
        columns["bag of words"] = metrics.compute_metrics(
            facts.baseline, facts.manifest.kind, facts.positive, facts.rating_range
        )
    if constant := constant_metrics(facts):
        columns["largest class" if facts.by_class else "mean of train"] = constant
    spans = test_intervals(facts)
    main = facts.main_metric
    headline = [
        (
            f"test {main.replace('_', ' ')}",
            number(test[main], f"headline.{main}", _note(spans.get(main), "95 % interval ")),
        ),
        *((name, number(values[main])) for name, values in list(columns.items())[1:] if values.get(main) is not None),
    ]
    rows = []
    for name in test:
        first = number(test[name], f"test.{name}", _note(spans.get(name)))
        rows.append([Cell(name.replace("_", " ")), first, *(number(v.get(name)) for v in list(columns.values())[1:])])
    of = facts.result.get("test_classes", {}).get("positive_class")
    method = ["Intervals: 95 %, percentile bootstrap over the test's examples, 1,000 samples."] if spans else []
    if of:
        method.append(f"Precision, recall, F1, ROC AUC and average precision are those of the class {of!r}.")
    if facts.baseline is not None:
        learned, whole = len(facts.columns["train"]), facts.manifest.splits["train"].examples
        of_train = "the same train" if learned == whole else f"the first {learned:,} of {whole:,} examples of train"
        method.append(f"Bag of words: {baseline.BASELINE_NAME.removeprefix('baseline: ')}, learned from {of_train}.")
    return Section(
        "result",
        "The result",
        [describe_model(facts), describe_worth(facts), *facts.result.get("notes", [])],
        headline=headline,
        tables=[Table("Test", ["", *columns], rows)],
        method=method,
    )


def _note(interval: intervals.Interval | None, prefix: str = "") -> str:
    return f"{prefix}{intervals.describe(interval)}" if interval else ""


def constant_metrics(facts: ReportFacts) -> dict[str, float] | None:
    """The metrics on test of always saying train's largest class, or train's mean. None if they are not known."""
    labels = facts.predictions["test"].labels
    if facts.by_class:
        return {"examples": len(labels), "accuracy": float(np.mean(labels == facts.manifest.largest_class))}
    if facts.scale is not None:
        error = float(np.mean((labels.astype(np.float64) - facts.scale.mean) ** 2))
        return {"examples": len(labels), "mean_squared_error": error}
    return None


def test_intervals(facts: ReportFacts) -> dict[str, intervals.Interval]:
    """The 95 % interval of each metric of test that has one here."""
    predictions = facts.predictions["test"]
    if facts.manifest.kind == "regression":
        return dict(intervals.number_intervals(predictions.labels, predictions.logits[:, 0]))
    if not facts.by_class:
        return {}
    found = intervals.class_intervals(predictions.labels, predictions.predicted, len(facts.manifest.labels))
    spans = {"accuracy": found["accuracy"][0], "macro_f1": found["macro_f1"][0]}
    if facts.positive is not None:
        spans |= {name: found[name][facts.positive] for name in ("precision", "recall", "f1")}
    return spans


def describe_model(facts: ReportFacts) -> str:
    """What the model does and how well, as a sentence."""
    manifest, test, spans = facts.manifest, facts.result["test"], test_intervals(facts)
    what = "a pair of texts" if manifest.texts == 2 else "a text"
    seen = f"On the {test['examples']:,} examples of test, which it has not seen,"
    if facts.by_class:
        shown = ", ".join(manifest.labels[:5]) + (f" and {len(manifest.labels) - 5} more" * (len(manifest.labels) > 5))
        low, high = spans["accuracy"]
        return (
            f"The model reads {what} and says one of: {shown}. {seen} it is right for "
            f"{percent(test['accuracy'])} (95 % interval: {percent(low)} to {percent(high)})."
        )
    if manifest.kind == "regression":
        error = float(np.sqrt(test["mean_squared_error"]))
        return f"The model reads {what} and says a number. {seen} the root of its mean squared error is {error:.4g}."
    main = facts.main_metric
    return (
        f"The model reads {what} and says which labels apply. {seen} its {main.replace('_', ' ')} is {test[main]:.4f}."
    )


def describe_worth(facts: ReportFacts) -> str:
    """Whether the encoder is better than the bag of words, as a sentence. "" if that is not known."""
    if facts.baseline is None:
        return ""
    test, other = facts.predictions["test"], facts.baseline
    if facts.by_class:
        right, other_right = (each.predicted == test.labels for each in (test, other))
        points = 100 * (right.mean() - other_right.mean())
        low, high = (100 * bound for bound in intervals.difference_interval(right, other_right))
        span = f"95 % interval of the difference: {low:+.1f} to {high:+.1f} points"
        if low > 0:
            return f"That is {points:.1f} points more than a bag of words ({span}): the encoder earns its cost."
        if high < 0:
            return f"A bag of words is better by {-points:.1f} points ({span}): the encoder does not earn its cost."
        return f"A bag of words is about as good ({span}): whether the encoder earns its cost is open."
    if facts.manifest.kind == "regression":
        error, other_error = ((p.logits[:, 0] - p.labels.astype(np.float64)) ** 2 for p in (test, other))
        if error.mean() < other_error.mean():
            return (
                f"The mean squared error is {percent(1 - error.mean() / other_error.mean(), 0)} below a bag of words'."
            )
        return "A bag of words has no larger mean squared error: the encoder does not earn its cost."
    return ""
