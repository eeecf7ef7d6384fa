"""Class weights from their setting, and weighed examples."""

import dataclasses

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from trainer.data import manifests, records
from trainer.train import example_weights


@pytest.fixture
def manifest(prepared):
    """Of 240 reviews to train on: "negative" 200, "positive" 40."""
    manifest = manifests.read_manifest(str(prepared))
    train = dataclasses.replace(manifest.splits["train"], label_counts={"negative": 200, "positive": 40})
    return dataclasses.replace(manifest, splits={**manifest.splits, "train": train})


def test_balanced_weights_are_scikit_learns(manifest):
    labels = np.repeat([0, 1], [200, 40])
    expected = compute_class_weight("balanced", classes=np.array([0, 1]), y=labels)
    assert example_weights.choose_class_weights("balanced", manifest) == pytest.approx(expected)


def test_a_class_that_is_not_named_weighs_1(manifest):
    assert example_weights.choose_class_weights({"positive": 5.0}, manifest).tolist() == [1, 5]
    assert example_weights.choose_class_weights(None, manifest) is None


def test_class_weights_of_unknown_classes_or_numbers_are_refused(manifest):
    (problem,) = example_weights.find_class_weight_problems({"Positive": 2.0}, manifest)
    assert "negative, positive" in problem.required
    numbers = dataclasses.replace(manifest, kind="regression", labels=())
    assert example_weights.find_class_weight_problems("balanced", numbers)
    assert not example_weights.find_class_weight_problems(None, numbers)


def test_an_examples_weight_is_multiplied_by_that_of_its_class():
    columns = records.Columns([0, 1, 2], records.to_ragged([]), None, np.array([0, 1, 1]), None, None)
    weights = np.array([1, 5], np.float32)
    assert example_weights.weigh_examples(columns, weights).weights.tolist() == [1, 5, 5]
    own = dataclasses.replace(columns, weights=np.array([2, 0, 0.5], np.float32))
    assert example_weights.weigh_examples(own, weights).weights.tolist() == [2, 0, 2.5]
    assert example_weights.weigh_examples(own, None) is own
