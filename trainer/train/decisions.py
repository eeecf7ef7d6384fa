"""How logits become scores and labels: the temperature and the threshold of a run, fitted on validation.

They are fitted when an evaluation is the best so far, and decision.json keeps them beside the weights: the end of a
run, a later evaluation and a later export decide alike, however often the run was interrupted.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from trainer.data import tasks
from trainer.data.labels import format_number
from trainer.evals import calibration, metrics, thresholds
from trainer.evals.metrics import Predictions, Threshold
from trainer.storage import fs

_LABEL_METRIC = "f1"  # What the thresholds of several labels are chosen for, unless another is named.


@dataclasses.dataclass(frozen=True)
class Decision:
    """The contents of decision.json."""

    step: int  # Of the weights that it was fitted with.
    temperature: float  # What calibrates the scores of validation.
    calibrate: bool  # Whether scores are of logits divided by it: training.calibrate.
    positive: int | None  # The index of the positive class.
    threshold_metric: str | None  # training.threshold_metric
    threshold: float | None  # The positive class is chosen where its score is above this. None: the likeliest class is.
    label_thresholds: list[float] | None  # Of several labels, each is chosen where its score is above its own.
    validation: dict[str, Any]  # _describe, of the predictions that it was fitted to.

    @property
    def score_temperature(self) -> float:
        """What logits are divided by for the scores."""
        return self.temperature if self.calibrate else 1.0


def fit_decision(
    predictions: Predictions, step: int, *, calibrate: bool, threshold_metric: str | None, positive: int | None
) -> Decision:
    """The decision that suits `predictions`, those of validation with the weights of `step`.

    A threshold is of the scores as they are exported: with `calibrate`, of calibrated ones. Several labels always have
    thresholds, for F1 unless `threshold_metric` names another.
    """
    temperature = calibration.fit_temperature(predictions.logits, predictions.labels)
    scores = dataclasses.replace(predictions, temperature=temperature if calibrate else 1.0).scores
    threshold, label_thresholds = None, None
    if predictions.several_labels:
        threshold_metric = threshold_metric or _LABEL_METRIC
        label_thresholds = thresholds.choose_label_thresholds(scores, predictions.labels, threshold_metric).tolist()
    elif threshold_metric is not None and positive is not None:
        labels = predictions.labels == positive
        threshold = thresholds.choose_threshold(scores[:, positive], labels, threshold_metric)
    decision = Decision(step, temperature, calibrate, positive, threshold_metric, threshold, label_thresholds, {})
    return dataclasses.replace(decision, validation=_describe(predictions, decision))


def apply_decision(predictions: Predictions, decision: Decision | None) -> Predictions:
    """The same predictions with the scores and labels that are exported."""
    if decision is None:
        return predictions
    threshold = None
    if decision.threshold is not None and decision.positive is not None:
        threshold = Threshold(decision.positive, decision.threshold)
    labels = None if decision.label_thresholds is None else np.array(decision.label_thresholds, np.float32)
    return dataclasses.replace(
        predictions, temperature=decision.score_temperature, threshold=threshold, label_thresholds=labels
    )


def _describe(predictions: Predictions, decision: Decision) -> dict[str, Any]:
    """{"calibration": {"before", "after" the temperature}, "threshold": {"without", "with" it} -> metrics}.

    There is no "threshold" without one.
    """
    predictions = dataclasses.replace(predictions, temperature=1.0, threshold=None, label_thresholds=None)
    described: dict[str, Any] = {
        "calibration": calibration.describe_calibration(predictions.logits, predictions.labels, decision.temperature)
    }
    if decision.threshold is not None or decision.label_thresholds is not None:
        described["threshold"] = {
            "without": _measure_labels(predictions, decision),
            "with": _measure_labels(apply_decision(predictions, decision), decision),
        }
    return described


def _measure_labels(predictions: Predictions, decision: Decision) -> dict[str, float]:
    kind = "multi_label" if predictions.several_labels else "classification"
    measured = metrics.compute_metrics(predictions, kind, decision.positive)
    decided = [name for name in tasks.METRICS[kind] if name in measured and name not in tasks.SCORE_METRICS]
    values = {name: float(measured[name]) for name in decided}
    if predictions.several_labels:
        return values
    chosen_for = str(decision.threshold_metric)
    labels, predicted = predictions.labels == decision.positive, predictions.predicted == decision.positive
    return values | {chosen_for: thresholds.measure(labels, predicted, chosen_for)}


def describe_result(decision: Decision | None, test: Predictions, names: tuple[str, ...]) -> dict[str, Any]:
    """What result.json says of the decision. `test` are the predictions of test.

    {"calibration": {"temperature", "applied", "validation", "test"}, "decision": {"class", "metric", "threshold", and
    with a metric "validation", "test"}}. Of several labels the decision has "thresholds" by name, and no class. It is
    None for more than two classes, both are for numbers.
    """
    if decision is None:
        return {"calibration": None, "decision": None}
    splits = {"validation": decision.validation, "test": _describe(test, decision)}
    calibrated: dict[str, Any] = {"temperature": decision.temperature, "applied": decision.calibrate}
    calibrated |= {split: described["calibration"] for split, described in splits.items()}
    if decision.label_thresholds is not None:
        by_name = dict(zip(names, decision.label_thresholds, strict=True))
        decided: dict[str, Any] = {"metric": decision.threshold_metric, "thresholds": by_name}
        decided |= {split: described["threshold"] for split, described in splits.items()}
        return {"calibration": calibrated, "decision": decided}
    if decision.positive is None or len(names) != 2:
        return {"calibration": calibrated, "decision": None}
    threshold = thresholds.DEFAULT_THRESHOLD if decision.threshold is None else decision.threshold
    decided = {"class": names[decision.positive], "metric": decision.threshold_metric, "threshold": threshold}
    decided |= {split: described["threshold"] for split, described in splits.items() if "threshold" in described}
    return {"calibration": calibrated, "decision": decided}


def format_decision(result: Mapping[str, Any]) -> list[str]:
    """The lines of a run's summary, from result.json's values."""
    lines = []
    if calibrated := result.get("calibration"):
        errors = (calibrated["test"][when]["expected_calibration_error"] for when in ("before", "after"))
        before, after = map(format_number, errors)
        used = "the scores have it" if calibrated["applied"] else "--training.calibrate=true exports such scores"
        lines.append(
            f"calibration error on test {before}, and {after} with the temperature {calibrated['temperature']:.4g} "
            f"that suits validation ({used})"
        )
    decided = result.get("decision")
    if decided and "thresholds" in decided:
        with_them, without = (format_number(decided["test"][which]["micro_f1"]) for which in ("with", "without"))
        lines.append(
            f"each label is given above its own threshold, chosen on validation for its {decided['metric']}: micro F1 "
            f"{with_them} on test, and {without} with 0.5 for all"
        )
    elif decided and decided["metric"]:
        name = decided["metric"]
        with_it, without = (format_number(decided["test"][which][name]) for which in ("with", "without"))
        lines.append(
            f"the label is {decided['class']!r} above a probability of {decided['threshold']:.4g}, chosen on "
            f"validation for {name.replace('_', ' ')}: {with_it} on test, and {without} at 0.5"
        )
    return lines


def write_decision(path: str, decision: Decision) -> None:
    fs.write_json(path, dataclasses.asdict(decision))


def read_decision(path: str, step: int) -> Decision | None:
    """The decision of the weights of `step`. None if they have none: a run from before it was kept, or numbers."""
    if not fs.exists(path):
        return None
    decision = Decision(**fs.read_json(path))
    return decision if decision.step == step else None
