"""The weights of examples in the loss: an example's own, if the data set has them, times that of its class.

They are the weights of the one global sum of a step, sum(weight * loss) / sum(weight), so that neither the number of
replicas nor an interruption changes the result. Evaluation counts every example once, whatever its weight.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from trainer.data import tasks
from trainer.data.manifests import Manifest
from trainer.data.records import Columns
from trainer.errors import Problem
from trainer.train import label_use


def find_class_weight_problems(setting: str | Mapping[str, float] | None, manifest: Manifest) -> list[Problem]:
    """Why training.class_weights does not suit the data set."""
    if setting is None:
        return []
    if manifest.kind != "classification":
        required = f"be left out for {tasks.KIND_NAMES[manifest.kind]}"
        return [Problem("training.class_weights", required, str(setting))]
    unknown = [] if isinstance(setting, str) else [label for label in setting if label not in manifest.labels]
    if unknown:
        required = f"name classes of the data set: {label_use.format_names(manifest.labels)}"
        return [Problem("training.class_weights", required, ", ".join(map(repr, unknown[:5])))]
    return []


def choose_class_weights(setting: str | Mapping[str, float] | None, manifest: Manifest) -> np.ndarray | None:
    """The weight of each class, float32 [C]. None if all are 1.

    "balanced" is examples / (classes * examples of the class), of train, as in scikit-learn's compute_class_weight.
    """
    if setting is None:
        return None
    if isinstance(setting, str):
        train = manifest.splits["train"]
        counts = np.array([train.label_counts[label] for label in manifest.labels])
        present = np.count_nonzero(counts)
        return (train.examples / (present * np.maximum(counts, 1))).astype(np.float32)
    return np.array([setting.get(label, 1.0) for label in manifest.labels], np.float32)


def weigh_examples(columns: Columns, class_weights: np.ndarray | None) -> Columns:
    """The same rows, weighed by their classes too. Labels are int32 [rows] if there are class weights."""
    if class_weights is None:
        return columns
    weights = class_weights[columns.labels]
    return dataclasses.replace(columns, weights=weights if columns.weights is None else columns.weights * weights)
