"""What a report is made from: plain values, gathered by train.run_report."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer.data.label_scale import LabelScale, RatingRange
from trainer.data.manifests import Manifest
from trainer.data.records import Columns
from trainer.evals.metrics import Predictions
from trainer.report.occlusion import Occlusion


@dataclasses.dataclass(frozen=True)
class ReportFacts:
    """A finished run. Splits are named train, validation and test."""

    model_dir: str
    export: str  # The export's folder.
    command: str  # It repeats the run.
    settings: Mapping[str, Any]  # The keys of the configuration that differ from the defaults.
    manifest: Manifest
    result: Mapping[str, Any]  # result.json
    history: Sequence[Mapping[str, Any]]  # The lines of metrics.jsonl.
    metric: str  # The validation metric that selects the best step.
    positive: int | None  # The class that precision, recall and F1 are of.
    scale: LabelScale | None
    rating_range: RatingRange | None
    readable_tokens: int  # The most tokens of an example that the model reads, without special ones.
    columns: Mapping[str, Columns]  # Split -> its rows with their texts. Train may be the first of its shards only.
    # Split -> the best weights' predictions, decided as the export decides: of validation and test, and of train where
    # labels were cross-checked.
    predictions: Mapping[str, Predictions]
    baseline: Predictions | None = None  # The bag of words on test.
    # Split -> float [rows, C]: the probabilities of bags of words that have not seen the row. Where it was asked for.
    cross_checked: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    occlusions: Sequence[Occlusion] = ()  # Of test's worst errors.

    @property
    def by_class(self) -> bool:
        """Whether each text has one class."""
        return self.manifest.kind == "classification"

    @property
    def main_metric(self) -> str:
        """The metric that is shown first: that of the best, unless it is the loss, which has no scale of its own."""
        first = next(name for name in self.result["test"] if name not in ("examples", "loss"))
        return self.metric if self.metric != "loss" and self.metric in self.result["test"] else str(first)
