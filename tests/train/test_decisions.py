import dataclasses

import numpy as np
import pytest
import scipy.special

from trainer.data import tasks
from trainer.evals import calibration, thresholds
from trainer.evals.metrics import Predictions, Threshold
from trainer.train import decisions

RNG = np.random.default_rng(0)
NAMES = ("fraud", "ok")


def draw(examples: int = 400, classes: int = 2) -> Predictions:
    """Predictions that are twice as sure as their labels allow, of a first class that is rarer."""
    logits = RNG.normal([-1.0] + [0.5] * (classes - 1), 1.5, (examples, classes)).astype(np.float32)
    chances = calibration.probabilities(logits, np.zeros(examples, int))
    labels = (chances.cumsum(axis=1) > RNG.random((examples, 1))).argmax(axis=1).astype(np.int32)
    return Predictions(list(range(examples)), labels, logits * 2, np.zeros(examples, np.float32))


def fit(predictions, calibrate=False, threshold_metric=None, positive=0):
    return decisions.fit_decision(
        predictions, 40, calibrate=calibrate, threshold_metric=threshold_metric, positive=positive
    )


def test_nothing_that_was_not_asked_for_is_applied():
    validation = draw()
    decision = fit(validation)
    assert 1.5 < decision.temperature < 2.7
    applied = decisions.apply_decision(validation, decision)
    assert (applied.scores == validation.scores).all()
    assert (applied.predicted == validation.predicted).all()
    assert decisions.apply_decision(validation, None) is validation


def test_several_labels_have_a_threshold_each():
    chances = RNG.random((400, 3)) * np.array([1.0, 0.5, 0.2])
    labels = chances > RNG.random((400, 3))
    labels[:, 2] = False
    logits = scipy.special.logit(np.clip(chances, 1e-3, 1 - 1e-3)).astype(np.float32)
    validation = Predictions(list(range(400)), labels, logits, np.zeros(400, np.float32))
    decision = fit(validation, positive=None)
    assert decision.label_thresholds == thresholds.choose_label_thresholds(validation.scores, labels).tolist()
    assert decision.label_thresholds[1] < 0.5
    assert decision.label_thresholds[2] == 0.5
    assert (
        decisions.apply_decision(validation, decision).predicted == (validation.scores > decision.label_thresholds)
    ).all()
    result = decisions.describe_result(decision, validation, ("a", "b", "c"))
    assert list(result["decision"]["thresholds"]) == ["a", "b", "c"]
    compared = result["decision"]["validation"]
    assert compared["with"]["macro_f1"] > compared["without"]["macro_f1"]
    (_, line) = decisions.format_decision(result)
    assert "each label is given above its own threshold" in line


def test_calibrated_scores_have_the_temperature_and_the_same_labels():
    validation = draw()
    decision = fit(validation, calibrate=True)
    applied = decisions.apply_decision(validation, decision)
    assert applied.temperature == decision.temperature == fit(validation).temperature
    assert (applied.predicted == validation.predicted).all()
    assert applied.scores.max() < validation.scores.max()


@pytest.mark.parametrize("calibrate", [False, True])
def test_a_threshold_is_of_the_scores_that_are_exported(calibrate):
    validation = draw()
    decision = fit(validation, calibrate, "f1")
    scores = dataclasses.replace(validation, temperature=decision.temperature if calibrate else 1.0).scores[:, 0]
    assert decision.threshold == thresholds.choose_threshold(scores, validation.labels == 0, "f1")
    applied = decisions.apply_decision(validation, decision)
    assert applied.threshold == Threshold(0, decision.threshold)
    assert ((applied.predicted == 0) == (scores > np.float32(decision.threshold))).all()


@pytest.mark.parametrize("metric", thresholds.METRICS)
def test_the_result_compares_with_and_without(metric):
    validation, test = draw(), draw(300)
    decision = fit(validation, True, metric)
    result = decisions.describe_result(decision, decisions.apply_decision(test, decision), NAMES)
    assert result == decisions.describe_result(decision, test, NAMES)
    calibrated, decided = result["calibration"], result["decision"]
    assert (calibrated["temperature"], calibrated["applied"]) == (decision.temperature, True)
    for split in ("validation", "test"):
        likelihoods = [calibrated[split][when]["negative_log_likelihood"] for when in ("before", "after")]
        assert likelihoods[1] < likelihoods[0]
        compared = {metric, *tasks.METRICS["classification"]} - set(tasks.SCORE_METRICS)
        assert decided[split]["with"].keys() == decided[split]["without"].keys() == compared
    assert decided["validation"]["with"][metric] >= decided["validation"]["without"][metric]
    assert (decided["class"], decided["metric"], decided["threshold"]) == ("fraud", metric, decision.threshold)
    accuracy = np.mean(test.predicted == test.labels)
    assert decided["test"]["without"]["accuracy"] == pytest.approx(accuracy)


def test_without_a_metric_the_threshold_is_a_half():
    decision = fit(draw())
    result = decisions.describe_result(decision, draw(), NAMES)
    assert result["decision"] == {"class": "fraud", "metric": None, "threshold": 0.5}
    assert result["calibration"]["applied"] is False


def test_more_classes_have_a_temperature_and_numbers_nothing():
    result = decisions.describe_result(fit(draw(classes=3), True, positive=None), draw(classes=3), ("a", "b", "c"))
    assert result["decision"] is None
    assert result["calibration"]["temperature"] > 1.5
    nothing = decisions.describe_result(None, draw(), ())
    assert nothing == {"calibration": None, "decision": None}
    assert decisions.format_decision(nothing) == decisions.format_decision({}) == []


def test_the_summary_has_a_line_for_each():
    decision = fit(draw(), False, "balanced_accuracy")
    result = decisions.describe_result(decision, draw(), NAMES)
    errors = [result["calibration"]["test"][when]["expected_calibration_error"] for when in ("before", "after")]
    of_temperature, of_threshold = decisions.format_decision(result)
    assert of_temperature.startswith(f"calibration error on test {errors[0]:.4f}, and {errors[1]:.4f} with")
    assert "--training.calibrate=true" in of_temperature
    assert of_threshold.startswith(f"the label is 'fraud' above a probability of {decision.threshold:.4g},")
    assert f": {result['decision']['test']['with']['balanced_accuracy']:.4f} on test" in of_threshold
    applied = decisions.describe_result(fit(draw(), True), draw(), NAMES)
    (of_temperature,) = decisions.format_decision(applied)
    assert "--training.calibrate" not in of_temperature


def test_a_decision_is_kept_with_the_step_of_its_weights(tmp_path):
    decision = fit(draw(), True, "f1")
    path = str(tmp_path / "decision.json")
    assert decisions.read_decision(path, decision.step) is None
    decisions.write_decision(path, decision)
    assert decisions.read_decision(path, decision.step) == decision
    assert decisions.read_decision(path, decision.step + 1) is None  # Of other weights.
