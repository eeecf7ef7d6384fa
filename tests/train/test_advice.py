import dataclasses

import numpy as np
import pytest

from trainer.data.label_scale import LabelScale
from trainer.data.manifests import Manifest, Split, Vocabulary
from trainer.evals.metrics import Predictions, Threshold
from trainer.train import advice


def manifest(counts: dict[str, int]) -> Manifest:
    train = Split(sum(counts.values()), (), counts, {}, {})
    kind = "classification" if counts else "regression"
    vocabulary = Vocabulary("", 0, True, 0, 0, 0)
    return Manifest("csv", kind, 1, tuple(counts), "", vocabulary, 0, {"train": train}, {})


def classified(labels, predicted, classes=2) -> Predictions:
    logits = np.eye(classes, dtype=np.float32)[predicted]
    return Predictions(list(range(len(labels))), np.array(labels, np.int32), logits, np.zeros(len(labels), np.float32))


def valued(labels, values) -> Predictions:
    columns = np.array(values, np.float32)[:, np.newaxis]
    return Predictions(list(range(len(labels))), np.array(labels, np.float32), columns, np.zeros(len(labels)))


COUNTS = {"fraud": 50, "ok": 950}


@pytest.mark.parametrize("predicted", [[1, 1, 1, 1], [1, 0, 1, 1], [0, 0, 1, 1]], ids=["equal", "as-often", "worse"])
def test_a_model_no_better_than_the_largest_class_is_named(predicted):
    (note,) = advice.on_reference(manifest(COUNTS), None, classified([0, 1, 1, 1], predicted))
    assert "no better than that of always saying 'ok', the largest class of train: 0.7500." in note
    for flag in ("--training.epochs", "--optimizer.learning_rate", "--training.best_metric=macro_f1"):
        assert flag in note


def test_a_better_or_perfect_model_is_not_named():
    assert advice.on_reference(manifest(COUNTS), None, classified([0, 1, 1, 1], [0, 1, 1, 1])) == []
    assert advice.on_reference(manifest(COUNTS), None, classified([1, 1], [1, 1])) == []


def test_a_threshold_may_cost_accuracy():
    likeliest = classified([0, 1, 1, 1], [0, 1, 1, 1])
    always_fraud = dataclasses.replace(likeliest, threshold=Threshold(0, 0.0))
    assert (always_fraud.predicted == 0).all()
    assert advice.on_reference(manifest(COUNTS), None, always_fraud) == []
    unlearned = dataclasses.replace(classified([0, 1, 1, 1], [1, 1, 1, 1]), threshold=Threshold(0, 0.0))
    (note,) = advice.on_reference(manifest(COUNTS), None, unlearned)
    assert "the accuracy 0.7500 of the likeliest class is no better" in note


def test_numbers_no_better_than_the_mean_are_named_in_their_units():
    (note,) = advice.on_reference(manifest({}), LabelScale(90.0, 5.0), valued([85, 95], [0, 1]))
    assert "the mean squared error 8030 is no better than that of always saying the mean of train, 90: 25." in note
    assert "--optimizer.learning_rate" in note
    assert advice.on_reference(manifest({}), LabelScale(90.0, 5.0), valued([85, 95], [86, 94])) == []
    assert advice.on_reference(manifest({}), LabelScale(85.0, 1.0), valued([85, 85], [85, 85])) == []


def test_numbers_without_a_scale_are_not_compared():
    assert advice.on_reference(manifest({}), None, valued([85, 95], [0, 1])) == []


def test_a_best_step_in_the_warm_up_or_at_the_end_is_named():
    assert advice.on_best_step(20, [10, 20, 30], 15) == []
    (warm_up,) = advice.on_best_step(10, [10, 20, 30], 15)
    assert "in the warm-up of 15 steps" in warm_up
    (last,) = advice.on_best_step(30, [10, 20, 30], 15)
    assert "is the last evaluation: more --training.epochs" in last
    (alone,) = advice.on_best_step(30, [30], 15)
    assert "is the only evaluation" in alone
    assert all("--training.eval_every" in note for note in (warm_up, last, alone))


def test_a_model_of_several_labels_is_held_against_the_frequent_ones():
    train = Split(100, (), {"a": 70, "b": 60, "c": 5}, {}, {})
    data = Manifest(
        "csv", "multi_label", 1, ("a", "b", "c"), "", Vocabulary("", 0, True, 0, 0, 0), 0, {"train": train}, {}
    )
    labels = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 1], [1, 1, 0]], bool)

    def found(selected) -> list[str]:
        logits = np.where(selected, 1, -1).astype(np.float32)
        return advice.on_reference(data, None, Predictions([0, 1, 2, 3], labels, logits, np.zeros(4, np.float32)))

    always = np.array([[1, 1, 0]] * 4, bool)
    (note,) = found(always)
    assert "the micro F1 0.8000 is no better than that of always saying 'a', 'b', the most frequent of train" in note
    assert found(labels) == []


def test_a_run_that_stopped_early_is_told_why():
    sentence = advice.on_early_stop(1240, 6000, "macro_f1", 3)
    assert "step 1,240 of 6,000, after 3 evaluations without a better macro_f1" in sentence
    assert "schedule of the planned steps" in sentence
    assert "after 1 evaluation without" in advice.on_early_stop(10, 20, "loss", 1)
