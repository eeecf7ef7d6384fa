"""The scores on GLUE's dev: the median over the seeds, beside published figures."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.glue.suite import SUITE

RESULTS_FILE = "results.json"
SOURCES = (
    "BERT-base dev: Hugging Face transformers, examples/pytorch/text-classification, bert-base-cased, one seed",
    "BERT-base test: Devlin et al., NAACL 2019, Table 1; GLUE's own test, which is another set than dev",
)


@dataclasses.dataclass(frozen=True)
class DevScore:
    """A metric of a task on dev."""

    name: str  # The task, and what its metric is of.
    metric: str
    by_seed: dict[int, float]
    median: float
    published_dev: float | None
    published_test: float | None


def collect_scores(
    results: Mapping[str, Mapping[int, Mapping[str, Any]]], mismatched: Mapping[int, float]
) -> list[DevScore]:
    """The scores of tasks: task -> seed -> result.json, whose test is dev; and mnli's accuracy on the other genres."""
    scores = []
    for task, by_seed in results.items():
        for figure in SUITE[task].figures:
            values = {seed: result["test"][figure.metric] for seed, result in by_seed.items()}
            values = dict(mismatched) if figure.mismatched else values
            name = f"{task} mismatched" if figure.mismatched else task
            scores.append(
                DevScore(name, figure.metric, values, statistics.median(values.values()), figure.dev, figure.test)
            )
    return scores


def format_scores(scores: Sequence[DevScore]) -> str:
    """The table for people, with the sources of the published figures."""
    from trainer.train import run_summary  # Imports TensorFlow.

    rows = []
    for each in scores:
        values: dict[str, Any] = {"median": each.median}
        if len(each.by_seed) > 1:
            values |= {"lowest": min(each.by_seed.values()), "highest": max(each.by_seed.values())}
        values["seeds"] = len(each.by_seed)
        values |= {"BERT-base dev": each.published_dev, "BERT-base test": each.published_test}
        rows.append((f"{each.name} {each.metric}", values))
    return "\n".join([run_summary.format_table(rows), *SOURCES])
