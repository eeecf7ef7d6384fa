"""The bag-of-words baseline on generated reviews."""

import random

import numpy as np
import pytest
from helpers import review

from trainer.data import manifests, records
from trainer.data.label_scale import LabelScale
from trainer.errors import UserError
from trainer.evals import baseline, metrics


def columns(texts, labels, texts_b=None) -> records.Columns:
    return records.Columns(list(range(len(texts))), records.to_ragged([]), None, np.array(labels), texts, texts_b)


def manifest(kind, labels=()) -> manifests.Manifest:
    return manifests.Manifest("csv", kind, 1, labels, "", manifests.Vocabulary("", 0, True, 0, 0, 0), 0, {}, {})


def generate_reviews(count, seed):
    rng = random.Random(seed)
    labels = [number % 2 for number in range(count)]
    return [review(rng, bool(label)) for label in labels], labels


def test_the_baseline_learns_the_words_of_each_class():
    train, test = (
        columns(texts, np.int32(labels)) for texts, labels in (generate_reviews(200, 0), generate_reviews(60, 1))
    )
    (predictions,) = baseline.predict_baseline(train, [test], manifest("classification", ("bad", "good")))
    scores = metrics.compute_metrics(predictions, "classification")
    assert scores["accuracy"] >= 0.95
    assert scores["examples"] == 60
    expected = -np.log(predictions.scores[np.arange(60), test.labels])
    assert predictions.losses == pytest.approx(expected, abs=1e-5)
    assert (predictions.ids, predictions.labels.tolist()) == (test.ids, test.labels.tolist())


def test_the_baseline_learns_numbers():
    train, test = (
        columns(texts, np.float32(labels) * 4 - 1)
        for texts, labels in (generate_reviews(200, 0), generate_reviews(60, 1))
    )
    (predictions,) = baseline.predict_baseline(train, [test], manifest("regression"))
    assert metrics.compute_metrics(predictions, "regression")["pearson"] > 0.9
    assert predictions.losses == pytest.approx((predictions.logits[:, 0] - test.labels) ** 2, abs=1e-5)
    (standardized,) = baseline.predict_baseline(train, [test], manifest("regression"), LabelScale(1.0, 2.0))
    assert (standardized.logits == predictions.logits).all()  # In the label's own units.
    assert standardized.losses == pytest.approx(predictions.losses / 4, abs=1e-5)


@pytest.mark.filterwarnings("error")
def test_a_class_missing_from_train_gets_probability_0():
    train = columns(["good film", "fine film", "poor plot", "bad plot"] * 5, np.int32([2, 2, 0, 0] * 5))
    test = columns(["fine film", "bad plot"], np.int32([2, 0]))
    (predictions,) = baseline.predict_baseline(train, [test], manifest("classification", ("a", "b", "c")))
    assert predictions.scores[:, 1].tolist() == [0, 0]
    assert predictions.scores.argmax(axis=1).tolist() == [2, 0]


def test_texts_without_words_have_no_baseline():
    texts = columns(["!", "?", "a"] * 5, np.int32([0, 1, 0] * 5))
    with pytest.raises(UserError, match=r"--baseline must .* 15 texts, such as '!'"):
        baseline.predict_baseline(texts, [texts], manifest("classification", ("a", "b")))


def test_both_texts_of_a_pair_are_joined():
    assert baseline.join_pairs(columns(["a", "b"], [0, 1], ["c", "d"])) == ["a c", "b d"]
    assert baseline.join_pairs(columns(["a", "b"], [0, 1])) == ["a", "b"]


def test_the_baseline_learns_each_of_several_labels():
    def with_labels(seed):
        texts, good = generate_reviews(200, seed)
        # Beside what the words tell: a label that never occurs, and one that always does.
        return columns(texts, np.array([[one == 1, one == 0, False, True] for one in good]))

    train, test = with_labels(0), with_labels(1)
    (predictions,) = baseline.predict_baseline(
        train, [test], manifest("multi_label", ("good", "bad", "never", "always"))
    )
    assert metrics.compute_metrics(predictions, "multi_label")["micro_f1"] >= 0.95
    assert (predictions.scores[:, 2] < 0.01).all()
    assert (predictions.scores[:, 3] > 0.99).all()
    scores = predictions.scores.astype(np.float64)
    expected = -np.log(np.where(test.labels, scores, 1 - scores)).mean(axis=1)
    assert predictions.losses == pytest.approx(expected, abs=1e-5)


def test_out_of_fold_no_row_is_judged_by_what_has_learned_it():
    texts, labels = generate_reviews(200, 0)
    # A word of its own would tell each row's label to a model that has seen it.
    rows = columns([f"{text} own{i}" for i, text in enumerate(texts)], np.int32(labels))
    flipped = np.int32(labels)
    flipped[::20] = 1 - flipped[::20]
    judged = baseline.predict_out_of_fold(
        columns(rows.texts, flipped), manifest("classification", ("bad", "good")), seed=0
    )
    assert judged.shape == (200, 2)
    assert judged.sum(axis=1) == pytest.approx(np.ones(200), abs=1e-5)
    assert np.mean(judged.argmax(axis=1) == labels) > 0.9
    assert np.mean(judged.argmax(axis=1)[::20] == flipped[::20]) < 0.3


def test_a_class_that_a_fold_lacks_has_no_probability_there():
    texts, labels = generate_reviews(20, 0)
    rows = columns([*texts, "something else"], np.int32([*labels, 2]))
    judged = baseline.predict_out_of_fold(rows, manifest("classification", ("bad", "good", "rare")), seed=0)
    assert judged[20, 2] == 0


def test_one_fit_predicts_each_split_as_if_it_were_alone():
    train, test, other = (
        columns(texts, np.int32(labels)) for texts, labels in (generate_reviews(40, i) for i in range(3))
    )
    known = manifest("classification", ("bad", "good"))
    both = baseline.predict_baseline(train, [test, other], known)
    for split, predictions in zip((test, other), both, strict=True):
        (alone,) = baseline.predict_baseline(train, [split], known)
        assert (predictions.logits == alone.logits).all()
        assert (predictions.labels == split.labels).all()
