"""The bag-of-words baseline: a linear model on TF-IDF features. An encoder has to beat it to justify its cost."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from trainer.data.label_scale import LabelScale
from trainer.data.manifests import Manifest
from trainer.data.records import Columns
from trainer.errors import Problem, UserError
from trainer.evals.metrics import Predictions

BASELINE_NAME = "baseline: TF-IDF + linear"


def join_pairs(columns: Columns) -> list[str]:
    """Return one document for each example: its text, or for pairs both texts, separated by a space."""
    assert columns.texts is not None
    if columns.texts_b is None:
        return columns.texts
    return [f"{text} {text_b}" for text, text_b in zip(columns.texts, columns.texts_b, strict=True)]


def predict_baseline(
    train: Columns, others: Sequence[Columns], manifest: Manifest, scale: LabelScale | None = None
) -> list[Predictions]:
    """Fit the baseline to `train`, by its weights, and return its predictions of each of `others`.

    All need their texts. With a `scale`, the losses of regression are those of the standardized label, as the
    encoder's are.

    Features are the words and word pairs of a text, weighted by (1 + ln(count)) * (ln((1 + n) / (1 + df)) + 1) and
    scaled to length 1, where df of the n documents hold the word
    (https://scikit-learn.org/stable/modules/feature_extraction.html#tfidf-term-weighting). The linear model is
    scikit-learn's LogisticRegression, one for each of several labels, or Ridge for regression, with its default L2
    penalty. Raises UserError if train has no words.
    """
    from sklearn.linear_model import Ridge

    vectorizer, train_features = _learn_features(join_pairs(train))
    features = [vectorizer.transform(join_pairs(each)) for each in others]
    if manifest.kind == "regression":
        ridge = Ridge().fit(train_features, train.labels, train.weights)
        values = [ridge.predict(each).astype(np.float32) for each in features]
        unit = scale.deviation if scale else 1.0
        return [
            Predictions(each.ids, each.labels, predicted[:, np.newaxis], ((predicted - each.labels) / unit) ** 2)
            for each, predicted in zip(others, values, strict=True)
        ]
    if manifest.kind == "multi_label":
        scores = _score_each_label(train_features, train.labels, features, train.weights)
        return [
            Predictions(each.ids, each.labels, logits, _binary_cross_entropy(logits, each.labels))
            for each, logits in zip(others, scores, strict=True)
        ]
    predict_logits = _fit_classes(train_features, train.labels, train.weights, manifest.classes)
    return [
        Predictions(each.ids, each.labels, logits, -logits[np.arange(len(each)), each.labels])
        for each, logits in zip(others, map(predict_logits, features), strict=True)
    ]


def _binary_cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """float32 [N]: the mean over the labels of logits, float [N, C], and labels, bool [N, C]."""
    losses: np.ndarray = (np.logaddexp(0, logits) - logits * labels).mean(axis=1, dtype=np.float32)
    return losses


def _learn_features(documents: Sequence[str]) -> tuple[Any, Any]:
    """A fitted TfidfVectorizer, and the features of the documents, sparse float32 [N, words]."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32)
    if not any(map(vectorizer.build_analyzer(), documents)):
        required = "be left out if no training text has a word of two letters or digits"
        raise UserError(Problem("--baseline", required, f"{len(documents):,} texts, such as {documents[0][:40]!r}"))
    return vectorizer, vectorizer.fit_transform(documents)


def _fit_classes(
    features: Any, labels: np.ndarray, weights: np.ndarray | None, classes: int
) -> Callable[[Any], np.ndarray]:
    """A function features -> logarithms of the classes' probabilities, float32 [N, C]."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=1000).fit(features, labels, weights)

    def predict_logits(others: Any) -> np.ndarray:
        # The columns of predict_log_proba are the classes that occur in train, not all classes of the manifest.
        logits = np.full((others.shape[0], classes), -np.inf, np.float32)
        logits[:, model.classes_] = model.predict_log_proba(others)
        return logits

    return predict_logits


def _score_each_label(
    train_features: Any, labels: np.ndarray, features: Sequence[Any], weights: np.ndarray | None
) -> list[np.ndarray]:
    """Logits, float32 [N, C] of each of `features`, of one model for each label, bool [train, C], learned by weight.

    A label that never or always occurs in train has the log odds of (count + 1) / (train + 2), which are finite.
    """
    from sklearn.linear_model import LogisticRegression

    examples = len(labels)
    logits = [np.empty((each.shape[0], labels.shape[1]), np.float32) for each in features]
    for column, of_label in enumerate(labels.T):
        count = int(of_label.sum())
        model = None
        if 0 < count < examples:
            model = LogisticRegression(max_iter=1000).fit(train_features, of_label, weights)
        constant = np.log((count + 1) / (examples - count + 1))
        for each, scores in zip(features, logits, strict=True):
            scores[:, column] = model.decision_function(each) if model else constant
    return logits


def predict_out_of_fold(columns: Columns, manifest: Manifest, seed: int, folds: int = 5) -> np.ndarray:
    """float32 [rows, C]: each row's probabilities by the baseline learned from the other folds. It needs the texts.

    Classes with fewer rows than folds may be missing from what a fold learns from, and have the probability 0 there.
    Raises ValueError if the other folds have no words, or one class alone.
    """
    documents = np.array(join_pairs(columns), dtype=object)
    fold = np.random.default_rng(seed).permutation(len(columns)) % folds
    probabilities = np.zeros((len(columns), manifest.classes), np.float32)
    for k in range(folds):
        others, rows = fold != k, np.flatnonzero(fold == k)
        vectorizer, features = _learn_features(documents[others])
        weights = None if columns.weights is None else columns.weights[others]
        predict_logits = _fit_classes(features, columns.labels[others], weights, manifest.classes)
        probabilities[rows] = np.exp(predict_logits(vectorizer.transform(documents[rows])))
    return probabilities
