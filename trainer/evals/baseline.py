"""A bag of words with a linear model on the same split: what an encoder has to beat to earn its cost."""

import numpy as np

from trainer.data.manifests import Manifest
from trainer.data.records import Columns
from trainer.evals.metrics import Predictions

BASELINE_NAME = "baseline: TF-IDF + linear"


def documents(columns: Columns) -> list[str]:
    """The texts; of a pair, both, one after the other."""
    assert columns.texts is not None
    if columns.texts_b is None:
        return columns.texts
    return [f"{a} {b}" for a, b in zip(columns.texts, columns.texts_b, strict=True)]


def predict_baseline(train: Columns, test: Columns, manifest: Manifest) -> Predictions:
    """Fit TF-IDF of words and pairs of words with logistic (or ridge) regression on `train`; predict `test`."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    features = vectorizer.fit_transform(documents(train))
    unseen = vectorizer.transform(documents(test))
    if manifest.kind == "regression":
        values = Ridge().fit(features, train.labels).predict(unseen).astype(np.float32)
        return Predictions(test.ids, test.labels, values[:, np.newaxis], (values - test.labels) ** 2)
    fitted = LogisticRegression(max_iter=1000).fit(features, train.labels)
    # predict_log_proba orders by the classes in train; a class's index is its column's.
    logits = np.full((len(test), manifest.classes), -np.inf, np.float32)
    logits[:, fitted.classes_] = fitted.predict_log_proba(unseen)
    return Predictions(test.ids, test.labels, logits, -logits[np.arange(len(test)), test.labels])
