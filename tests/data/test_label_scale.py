import numpy as np
import pytest
from data.conftest import write_shards

from trainer.data import label_scale, records
from trainer.data.label_scale import LabelScale, RatingRange
from trainer.data.manifests import Split
from trainer.data.records import Example

RNG = np.random.default_rng(0)


def columns(labels) -> records.Columns:
    labels = np.array(labels, np.float32)
    return records.Columns(list(range(len(labels))), records.to_ragged([]), None, labels, None, None)


@pytest.mark.parametrize(("mean", "deviation"), [(90, 5), (0, 1), (-1e6, 100), (0.001, 0.0001)])
def test_the_scale_is_mean_and_deviation(mean, deviation):
    labels = RNG.normal(mean, deviation, 500).astype(np.float32)
    scale = label_scale.fit_scale(labels)
    assert scale.mean == pytest.approx(labels.astype(np.float64).mean(), rel=1e-12)
    assert scale.deviation == pytest.approx(labels.astype(np.float64).std(), rel=1e-9)


def test_the_scale_does_not_depend_on_the_order_of_the_labels():
    labels = RNG.normal(1000, 3, 1001).astype(np.float32)
    assert label_scale.fit_scale(labels) == label_scale.fit_scale(labels[::-1])


@pytest.mark.parametrize("label", [0.1, 0, 85, -3e7])
def test_equal_labels_have_deviation_1(label):
    labels = np.full(7, label, np.float32)
    assert label_scale.fit_scale(labels) == LabelScale(float(labels[0]), 1.0)
    assert label_scale.standardize(columns(labels), label_scale.fit_scale(labels)).labels.tolist() == [0] * 7


POINTS = np.linspace(0, 100, 50)


@pytest.mark.parametrize("values", [POINTS * 1e30, POINTS * 1e-30, POINTS + 1e5, POINTS * 1e5 + 1.7e9, POINTS // 99])
def test_numbers_that_float32_tells_apart_can_be_predicted(values):
    assert label_scale.find_number_problems(values) == []


@pytest.mark.parametrize("values", [POINTS * 1e300, POINTS * 1e-60, POINTS + 1e9, -1e16 - POINTS])
def test_numbers_that_float32_does_not_tell_apart_are_refused(values):
    (problem,) = label_scale.find_number_problems(values)
    assert problem.received == f"some from {values.min():.10g} to {values.max():.10g}"


def test_numbers_that_are_all_equal_are_refused():
    (problem,) = label_scale.find_number_problems(np.full(9, 5.5))
    assert problem.received == "5.5 in all 9 rows"


def test_standardized_labels_have_mean_0_and_deviation_1():
    labels = RNG.normal(90, 5, 300)
    scale = label_scale.fit_scale(columns(labels).labels)
    standardized = label_scale.standardize(columns(labels), scale)
    assert standardized.labels.dtype == np.float32
    assert standardized.labels.mean() == pytest.approx(0, abs=1e-5)
    assert standardized.labels.std() == pytest.approx(1, abs=1e-5)
    assert standardized.ids == list(range(300))
    restored = label_scale.restore_units(standardized.labels, scale)
    assert restored.dtype == np.float32
    assert restored == pytest.approx(labels.astype(np.float32), abs=2e-5)


def test_without_a_scale_nothing_changes():
    classes = columns([0, 1])
    assert label_scale.standardize(classes, None) is classes
    values = np.array([[1.5]], np.float32)
    assert label_scale.restore_units(values, None) is values


def test_the_labels_of_all_train_shards_are_read(tmp_path, make_manifest):
    tokens = np.array([7], np.int32)
    labels = ((80.0, 90.0), (100.0, 70.0))
    examples = [[Example(0, "a text", None, tokens, None, label) for label in shard] for shard in labels]
    shards = write_shards(tmp_path, examples)
    split = Split(4, shards, {}, {}, {})
    manifest = make_manifest(kind="regression", labels=(), splits={"train": split, "test": Split(0, (), {}, {}, {})})
    read = label_scale.read_train_labels(str(tmp_path), manifest)
    assert (read.dtype, read.tolist()) == (np.float32, [80, 90, 100, 70])


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([1, 5, 3, 3], RatingRange(1, 5)),
        ([-1, 0, 1], RatingRange(-1, 1)),
        ([1, 20], RatingRange(1, 20)),
        ([1, 21], None),
        ([1, 2.5, 5], None),
        ([0, 1e30], None),
    ],
)
def test_few_whole_numbers_are_ratings(labels, expected):
    assert label_scale.find_rating_range(np.array(labels, np.float32)) == expected
