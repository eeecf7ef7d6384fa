"""Facts for reports, made by seed without TensorFlow's help: texts, their tokens, and predictions."""

import dataclasses
import random
from collections.abc import Sequence

import numpy as np
from helpers import review

from trainer.data.label_scale import LabelScale
from trainer.data.manifests import Findings, Manifest, Split, Vocabulary
from trainer.data.records import Columns, to_ragged
from trainer.evals import metrics
from trainer.evals.metrics import Predictions
from trainer.report.facts import ReportFacts

SIZES = {"train": 240, "validation": 60, "test": 120}


def make_columns(texts: Sequence[str], labels: np.ndarray, first_id: int = 0) -> Columns:
    """Columns of texts, each word of which is a token."""
    words = sorted({word for text in texts for word in text.split()})
    number = {word: 10 + i for i, word in enumerate(words)}
    tokens = [np.array([number[word] for word in text.split()], np.int32) for text in texts]
    ids: list[int | str] = list(range(first_id, first_id + len(texts)))
    return Columns(ids, to_ragged(tokens), None, labels, list(texts), None)


def _predict(labels: np.ndarray, classes: int, right: float, rng: np.random.Generator) -> Predictions:
    said = np.where(rng.random(len(labels)) < right, labels, (labels + 1) % classes)
    logits = rng.normal(0, 0.5, (len(labels), classes)).astype(np.float32)
    logits[np.arange(len(labels)), said] += 3
    losses = -np.log(Predictions([], labels, logits, labels).scores[np.arange(len(labels)), labels])
    return Predictions(list(range(len(labels))), labels, logits, losses.astype(np.float32))


def _split(columns: Columns, names: Sequence[str]) -> Split:
    lengths = columns.lengths()
    percentiles = {str(p): int(np.percentile(lengths, p)) for p in (50, 90, 100)}
    bounds, counts = np.unique(np.ceil(np.log2(np.maximum(lengths, 1))).astype(int), return_counts=True)
    histogram = {str(1 << int(b)): int(count) for b, count in zip(bounds, counts, strict=True)}
    by_name = {name: int(np.sum(columns.labels == i)) for i, name in enumerate(names)}
    return Split(len(columns), (), by_name, percentiles, histogram)


def _facts(kind: str, names: tuple[str, ...], columns: dict[str, Columns], **others) -> ReportFacts:
    manifest = Manifest(
        task="csv",
        kind=kind,
        texts=1,
        labels=names,
        encoder="tiny",
        vocabulary=Vocabulary("0" * 64, 1000, True, 1, 2, 0),
        seed=0,
        splits={name: _split(split, names) for name, split in columns.items()},
        removed={"duplicates": 0},
        findings=Findings("2 classes in 420 rows"),
    )
    predictions, positive = others["predictions"], others["positive"]
    measured = {name: metrics.compute_metrics(p, kind, positive) for name, p in predictions.items()}
    history = [
        *(
            {"step": s, "split": "train", "loss": 0.7 - s / 200, "examples_per_second": 90.0 + s}
            for s in range(10, 101, 10)
        ),
        *({"step": s, "split": "validation", **measured["validation"]} for s in (50, 100)),
        {"step": 100, "split": "test", **measured["test"]},
    ]
    described = metrics.describe_classes(predictions["test"], names) if names else {}
    result = {
        "task": "csv",
        "steps": 100,
        "best_step": 100,
        "seconds": 75.25,
        **measured,
        "test_classes": {"positive_class": names[positive], **described} if names else {},
        "notes": ["The best step, 100, is the last evaluation."],
        "export_difference": 2.5e-07,
        "precision": "float32",
        "machine": {
            "device_type": "CPU",
            "device_name": "a processor",
            "devices": 1,
            "cores": 2,
            "peak_memory_bytes": 1_500_000_000,
        },
        "encoder": {"name": "tiny", "path": "native", "sha256": "ab" * 32},
        "data_fingerprint": "cd" * 32,
        "versions": {"tensorflow": "2.20.0"},
    }
    return ReportFacts(
        model_dir="runs/mine",
        export="runs/mine/export",
        command="python -m trainer.task --model_dir=runs/mine_again",
        settings={"training.steps": 100},
        manifest=manifest,
        result=result,
        history=history,
        metric="accuracy" if names else "pearson",
        readable_tokens=22,
        rating_range=None,
        columns=columns,
        **others,
    )


def class_facts(names: tuple[str, ...] = ("negative", "positive"), seed: int = 0) -> ReportFacts:
    rng, words = np.random.default_rng(seed), random.Random(seed)
    columns = {}
    for split, size in SIZES.items():
        labels = rng.integers(len(names), size=size).astype(np.int32)
        texts = [f"{split}{i} {review(words, bool(label))}" for i, label in enumerate(labels)]
        columns[split] = make_columns(texts, labels)
    predictions = {name: _predict(columns[name].labels, len(names), 0.9, rng) for name in ("validation", "test")}
    baseline = _predict(columns["test"].labels, len(names), 0.7, rng)
    return _facts("classification", names, columns, predictions=predictions, baseline=baseline, positive=1, scale=None)


def number_facts(seed: int = 0) -> ReportFacts:
    rng, words = np.random.default_rng(seed), random.Random(seed)
    columns, predictions = {}, {}
    for split, size in SIZES.items():
        labels = rng.uniform(80, 100, size).astype(np.float32)
        columns[split] = make_columns([f"{split}{i} {review(words, y > 90)}" for i, y in enumerate(labels)], labels)
        values = (labels + rng.normal(0, 1, size)).astype(np.float32)
        predictions[split] = Predictions(list(range(size)), labels, values[:, None], ((values - labels) / 5) ** 2)
    del predictions["train"]
    test = predictions["test"]
    baseline = dataclasses.replace(test, logits=test.logits + np.float32(2))
    scale = LabelScale(90.0, 5.0)
    return _facts("regression", (), columns, predictions=predictions, baseline=baseline, positive=None, scale=scale)
