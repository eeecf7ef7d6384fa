import dataclasses

import pytest

from trainer.data import manifests
from trainer.data.label_scale import RatingRange
from trainer.train import label_use


@pytest.fixture(scope="module")
def manifest(prepared):
    return manifests.read_manifest(str(prepared))


def with_counts(manifest, train: dict[str, int], **others: dict[str, int]):
    """The manifest with these counts of examples by class."""
    splits = {
        name: dataclasses.replace(split, label_counts=others.get(name, train), examples=sum(train.values()))
        for name, split in manifest.splits.items()
    }
    return dataclasses.replace(manifest, labels=tuple(train), splits=splits)


def choose(manifest, positive_class=""):
    return label_use.choose_label_use("", manifest, positive_class)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"fraud": 5, "ok": 95}, "fraud"),
        ({"fraud": 95, "ok": 5}, "ok"),
        ({"negative": 50, "positive": 50}, "positive"),
        ({"a": 1, "b": 2, "c": 3}, None),
    ],
)
def test_the_positive_class_is_the_rarer_of_two(manifest, counts, expected):
    assert choose(with_counts(manifest, counts)) == label_use.LabelUse(None, expected)


def test_the_positive_class_of_a_known_task_is_its_convention_s(manifest):
    paraphrases = with_counts(manifest, {"not_equivalent": 32, "equivalent": 68})
    assert choose(paraphrases).positive_class == "not_equivalent"
    assert choose(dataclasses.replace(paraphrases, task="mrpc")).positive_class == "equivalent"


@pytest.mark.parametrize("counts", [{"fraud": 5, "ok": 95}, {"a": 1, "b": 2, "ok": 3}])
def test_a_setting_names_the_positive_class(manifest, counts):
    assert choose(with_counts(manifest, counts), "ok").positive_class == "ok"


def problems(manifest, positive_class="", metric="loss") -> list[str]:
    return [str(problem) for problem in label_use.find_label_problems(manifest, positive_class, metric)]


def test_an_unknown_positive_class_is_told_the_class_names(manifest):
    (problem,) = problems(manifest, "good")
    expected = "data.positive_class must be a class of the data set: negative, positive. Received: good."
    assert problem == expected


def test_numbers_have_no_positive_class_and_other_metrics(manifest):
    numbers = dataclasses.replace(manifest, kind="regression", labels=())
    found = problems(numbers, "good", "macro_f1")
    assert len(found) == 2
    assert "data.positive_class must be left out" in found[0]
    assert "training.best_metric must be one of pearson, spearman, mean_squared_error, accuracy, " in found[1]
    assert not problems(numbers, metric="mean_squared_error")


def test_a_metric_of_numbers_is_refused_for_classes(manifest):
    (problem,) = problems(manifest, metric="pearson")
    assert "average_precision, loss for classes. Received: pearson." in problem


@pytest.mark.parametrize("metric", ["roc_auc", "average_precision", "f1", "recall"])
def test_a_metric_that_validation_does_not_define_is_refused(manifest, metric):
    counts = {"fraud": 5, "ok": 95}
    lacking = with_counts(manifest, counts, validation={"fraud": 0, "ok": 100})
    (problem,) = problems(lacking, metric=metric)
    assert f"Received: {metric}, where 0 of 100 validation texts are of 'fraud'. Choose another" in problem
    assert ("'fraud' and of others there" in problem) == (metric in ("roc_auc", "average_precision"))
    assert not problems(lacking, metric="macro_f1")
    assert not problems(with_counts(manifest, counts), metric=metric)


def test_a_mean_over_classes_may_lack_one_of_them(manifest):
    counts = {"a": 1, "b": 2, "c": 3}
    lacking = with_counts(manifest, counts, validation=counts | {"a": 0})
    assert not problems(lacking, metric="f1")
    assert problems(lacking, "a", metric="f1")
    assert problems(lacking, metric="roc_auc")


def test_many_class_names_are_shown_with_their_number():
    assert label_use.format_names(["a", "b"]) == "a, b"
    assert label_use.format_names([]) == "numbers"
    shown = label_use.format_names([str(n) for n in range(77)])
    assert shown.endswith("19, ... (77 in all)")


def test_several_labels_have_no_positive_class_and_own_metrics(manifest):
    several = dataclasses.replace(with_counts(manifest, {"a": 5, "b": 7}), kind="multi_label")
    assert choose(several) == label_use.LabelUse(None, None)
    positive, metric = problems(several, "a", "accuracy")
    assert "data.positive_class must be left out where a text may have several labels" in positive
    assert "must be one of micro_f1, macro_f1, " in metric
    lacking = dataclasses.replace(
        with_counts(manifest, {"a": 5, "b": 7}, validation={"a": 0, "b": 3}), kind="multi_label"
    )
    assert not problems(lacking, metric="average_precision")
    nothing = dataclasses.replace(
        with_counts(manifest, {"a": 5, "b": 7}, validation={"a": 0, "b": 0}), kind="multi_label"
    )
    assert problems(nothing, metric="average_precision")


def test_numbers_are_ratings_if_train_s_labels_are(points_job, manifest):
    numbers = dataclasses.replace(manifest, kind="regression", labels=())
    ratings = label_use.LabelUse(None, None, RatingRange(1, 5))
    assert points_job.label_use.rating_range is None
    for metric in ("accuracy", "quadratic_kappa"):
        assert not label_use.find_rating_problems(numbers, ratings, metric)
        (problem,) = label_use.find_rating_problems(numbers, points_job.label_use, metric)
        assert (problem.setting, problem.received) == ("training.best_metric", metric)
    assert not label_use.find_rating_problems(numbers, points_job.label_use, "pearson")
    assert not label_use.find_rating_problems(manifest, label_use.LabelUse(None, None), "accuracy")


def decision_problems(manifest, **settings) -> list[str]:
    settings = {"calibrate": False, "threshold_metric": None} | settings
    return [problem.setting for problem in label_use.find_decision_problems(manifest, **settings)]


def test_a_threshold_is_between_two_classes_and_a_temperature_of_classes(manifest):
    three = with_counts(manifest, {"a": 1, "b": 2, "c": 3})
    numbers = dataclasses.replace(manifest, kind="regression", labels=())
    both = {"calibrate": True, "threshold_metric": "f1"}
    assert decision_problems(manifest, **both) == []
    assert decision_problems(three, **both) == ["training.threshold_metric"]
    assert decision_problems(numbers, **both) == ["training.calibrate", "training.threshold_metric"]
    assert decision_problems(numbers) == []
