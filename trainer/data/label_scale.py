"""The scale of labels that are numbers: a model learns (label - mean) / deviation of train's labels.

A network's output starts near 0 and moves by small steps, so it does not reach labels of 80 to 100. What people see
(metrics, predictions, an export's scores) is in the label's own units.
"""

import dataclasses
import math

import numpy as np

from trainer.data import manifests, records
from trainer.errors import Problem

# What a label may lose as float32, the type that it is stored as, in standard deviations of all labels.
MAX_ROUNDING_ERROR = 0.01


# A rating has at most this many whole numbers to choose from, from the lowest to the highest.
MAX_RATINGS = 20


@dataclasses.dataclass(frozen=True)
class LabelScale:
    """Mean and standard deviation of train's labels, in the label's own units. The deviation is above 0."""

    mean: float
    deviation: float


@dataclasses.dataclass(frozen=True)
class RatingRange:
    """The lowest and the highest of train's labels, where they are ratings: few whole numbers."""

    lowest: int
    highest: int


def find_number_problems(values: np.ndarray) -> list[Problem]:
    """What is wrong with numbers to predict, float64 [rows]: all are equal, or float32 does not tell them apart."""
    smallest, largest = values.min(), values.max()
    if smallest == largest:
        return [Problem("The labels", "differ, to be predicted", f"{smallest:.10g} in all {len(values):,} rows")]
    with np.errstate(over="ignore"):
        error = float(np.abs(values.astype(np.float32) - values).max())
    unit = np.abs(values).max()  # The square of a large number is infinite.
    if error <= MAX_ROUNDING_ERROR * float((values / unit).std() * unit):
        return []
    required = "be numbers that differ within the 7 digits of float32, from 1e-37 to 1e38"
    advice = "Subtract a number that is near all of them, or divide all by one."
    return [Problem("The labels", required, f"some from {smallest:.10g} to {largest:.10g}", advice)]


def fit_scale(labels: np.ndarray) -> LabelScale:
    """The scale of `labels`, float32 [rows]. The deviation of labels that are all equal is 1.

    The sums are rounded once (math.fsum), so that the scale is the same on every machine.
    """
    values = labels.astype(np.float64)
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((values - mean) ** 2) / len(values))
    # The mean of equal labels may differ from them in the last bit.
    constant = values.min() == values.max()
    return LabelScale(float(values[0]), 1.0) if constant else LabelScale(mean, deviation)


def find_rating_range(labels: np.ndarray) -> RatingRange | None:
    """The range of `labels`, float32 [rows], if all are whole and MAX_RATINGS whole numbers, or fewer, are in it."""
    lowest, highest = float(labels.min()), float(labels.max())
    if highest - lowest >= MAX_RATINGS or (labels % 1).any():
        return None
    return RatingRange(int(lowest), int(highest))


def read_train_labels(folder: str, manifest: manifests.Manifest) -> np.ndarray:
    """The labels in the train shards, float32 [rows]. One shard is in memory at a time.

    Raises what records.read_shards does.
    """
    shards = manifest.splits["train"].shards
    return np.concatenate([records.read_shards(folder, [shard], manifest).labels for shard in shards])


def standardize(columns: records.Columns, scale: LabelScale | None) -> records.Columns:
    """The same rows with labels as the model learns them. Without a scale, as they are."""
    if scale is None:
        return columns
    standardized = (columns.labels.astype(np.float64) - scale.mean) / scale.deviation
    return dataclasses.replace(columns, labels=standardized.astype(np.float32))


def restore_units(values: np.ndarray, scale: LabelScale | None) -> np.ndarray:
    """A model's outputs, float32 of any shape, in the label's own units. Without a scale, as they are."""
    if scale is None:
        return values
    return (values.astype(np.float64) * scale.deviation + scale.mean).astype(np.float32)
