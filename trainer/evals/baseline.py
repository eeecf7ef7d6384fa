"""The bag-of-words baseline: a linear model on TF-IDF features. An encoder has to beat it to justify its cost."""

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


def predict_baseline(train: Columns, test: Columns, manifest: Manifest, scale: LabelScale | None = None) -> Predictions:
    """Fit the baseline to `train`, by its weights, and return its predictions of `test`. Both need their texts.

    With a `scale`, the losses of regression are those of the standardized label, as the encoder's are.

    Features are the words and word pairs of a text, weighted by (1 + ln(count)) * (ln((1 + n) / (1 + df)) + 1) and
    scaled to length 1, where df of the n documents hold the word
    (https://scikit-learn.org/stable/modules/feature_extraction.html#tfidf-term-weighting). The linear model is
    scikit-learn's LogisticRegression, one for each of several labels, or Ridge for regression, with its default L2
    penalty. Raises UserError if train has no words.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32)
    documents = join_pairs(train)
    if not any(map(vectorizer.build_analyzer(), documents)):
        required = "be left out for a train without words of two letters or digits"
        raise UserError(Problem("--baseline", required, f"{len(documents):,} texts, such as {documents[0][:40]!r}"))
    train_features = vectorizer.fit_transform(documents)
    test_features = vectorizer.transform(join_pairs(test))
    if manifest.kind == "regression":
        values = Ridge().fit(train_features, train.labels, train.weights).predict(test_features).astype(np.float32)
        losses = ((values - test.labels) / (scale.deviation if scale else 1.0)) ** 2
        return Predictions(test.ids, test.labels, values[:, np.newaxis], losses)
    if manifest.kind == "multi_label":
        logits = _score_each_label(train_features, train.labels, test_features, train.weights)
        losses = np.mean(np.logaddexp(0, logits) - logits * test.labels, axis=1, dtype=np.float32)
        return Predictions(test.ids, test.labels, logits, losses)
    model = LogisticRegression(max_iter=1000).fit(train_features, train.labels, train.weights)
    # The columns of predict_log_proba are the classes that occur in train, not all classes of the manifest.
    logits = np.full((len(test), manifest.classes), -np.inf, np.float32)
    logits[:, model.classes_] = model.predict_log_proba(test_features)
    return Predictions(test.ids, test.labels, logits, -logits[np.arange(len(test)), test.labels])


def _score_each_label(
    train_features: Any, labels: np.ndarray, test_features: Any, weights: np.ndarray | None
) -> np.ndarray:
    """Logits, float32 [N, C], of one model for each label, bool [train, C], learned by weight, float32 [train].

    A label that never or always occurs in train has the log odds of (count + 1) / (train + 2), which are finite.
    """
    from sklearn.linear_model import LogisticRegression

    examples = len(labels)
    logits = np.empty((test_features.shape[0], labels.shape[1]), np.float32)
    for column, of_label in enumerate(labels.T):
        count = int(of_label.sum())
        if 0 < count < examples:
            model = LogisticRegression(max_iter=1000).fit(train_features, of_label, weights)
            logits[:, column] = model.decision_function(test_features)
        else:
            logits[:, column] = np.log((count + 1) / (examples - count + 1))
    return logits


def predict_out_of_fold(columns: Columns, manifest: Manifest, seed: int, folds: int = 5) -> np.ndarray:
    """float32 [rows, C]: each row's probabilities by the baseline learned from the other folds. It needs the texts.

    Classes with fewer rows than folds may be missing from what a fold learns from, and have the probability 0 there.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    documents = np.array(join_pairs(columns), dtype=object)
    fold = np.random.default_rng(seed).permutation(len(columns)) % folds
    probabilities = np.zeros((len(columns), manifest.classes), np.float32)
    for k in range(folds):
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32)
        features = vectorizer.fit_transform(documents[fold != k])
        model = LogisticRegression(max_iter=1000).fit(
            features, columns.labels[fold != k], None if columns.weights is None else columns.weights[fold != k]
        )
        rows = np.flatnonzero(fold == k)
        probabilities[np.ix_(rows, model.classes_)] = model.predict_proba(vectorizer.transform(documents[rows]))
    return probabilities
