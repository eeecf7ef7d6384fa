"""What a finished run's figures say about its settings, as sentences for people."""

import dataclasses

import numpy as np

from trainer.data.label_scale import LabelScale
from trainer.data.manifests import Manifest
from trainer.evals import multi_label_metrics
from trainer.evals.metrics import Predictions

MAX_SHOWN_LABELS = 5
_LEARN_MORE = (
    "Train longer (--training.epochs), try another --optimizer.learning_rate, compare with --mode=evaluate --baseline, "
    "and look at the labels with prepare_data.py --inspect."
)


def on_reference(manifest: Manifest, scale: LabelScale | None, test: Predictions) -> list[str]:
    """A sentence if a model that ignores the text is as good on `test`: one that says train's largest class, or mean.

    Of several labels it is one that always says the most frequent. Without a scale, numbers are not compared.
    """
    if manifest.kind == "multi_label":
        return _on_frequent_labels(manifest, test)
    if manifest.kind == "classification":
        largest = manifest.largest_class
        reference = float(np.mean(test.labels == largest))
        # A threshold may cost accuracy on purpose.
        likeliest = dataclasses.replace(test, threshold=None).predicted
        accuracy = float(np.mean(likeliest == test.labels))
        if accuracy > reference or accuracy == 1:
            return []
        of_likeliest = " of the likeliest class" if test.threshold else ""
        return [
            f"On test, the accuracy {accuracy:.4f}{of_likeliest} is no better than that of always saying "
            f"{manifest.labels[largest]!r}, the largest class of train: {reference:.4f}. {_LEARN_MORE} If classes are "
            "rare, --training.best_metric=macro_f1 counts all classes alike."
        ]
    if scale is None:
        return []
    labels = test.labels.astype(np.float64)
    error = float(np.mean((test.logits[:, 0] - labels) ** 2))
    of_mean = float(np.mean((scale.mean - labels) ** 2))
    if error < of_mean or error == 0:
        return []
    return [
        f"On test, the mean squared error {error:.4g} is no better than that of always saying the mean of train, "
        f"{scale.mean:.4g}: {of_mean:.4g}. {_LEARN_MORE}"
    ]


def _on_frequent_labels(manifest: Manifest, test: Predictions) -> list[str]:
    """on_reference of several labels: the same for all texts, those that have the best micro F1 on train."""
    train = manifest.splits["train"]
    counts = np.array([train.label_counts[name] for name in manifest.labels])
    by_count = np.argsort(-counts, kind="stable")
    of_all = 2 * counts[by_count].cumsum() / (counts.sum() + train.examples * np.arange(1, len(counts) + 1))
    always = np.zeros(test.labels.shape, bool)
    always[:, by_count[: of_all.argmax() + 1]] = True
    reference, micro_f1 = (
        multi_label_metrics.compute_micro_f1(test.labels, selected) for selected in (always, test.predicted)
    )
    if micro_f1 > reference or micro_f1 == 1:
        return []
    names = ", ".join(repr(manifest.labels[i]) for i in by_count[: of_all.argmax() + 1][:MAX_SHOWN_LABELS])
    return [
        f"On test, the micro F1 {micro_f1:.4f} is no better than that of always saying {names}, the most frequent of "
        f"train: {reference:.4f}. {_LEARN_MORE}"
    ]


def on_early_stop(step: int, planned: int, metric: str, evaluations: int) -> str:
    """A sentence on a run that ended at `step` of `planned`, after this many evaluations without a better one."""
    many = "evaluations" if evaluations > 1 else "evaluation"
    return (
        f"Training stopped at step {step:,} of {planned:,}, after {evaluations} {many} without a better {metric} on "
        "validation (training.patience). The learning rate had followed the schedule of the planned steps."
    )


def on_best_step(best: int, evaluations: list[int], warmup: int) -> list[str]:
    """A sentence if the best of the steps `evaluations` is in the warm-up, of `warmup` steps, or is the last."""
    if best == evaluations[-1]:
        alone = "the only evaluation" if len(evaluations) == 1 else "the last evaluation"
        return [
            f"The best step, {best:,}, is {alone}: more --training.epochs may give a better one, and a lower "
            "--training.eval_every more to choose from."
        ]
    if best <= warmup:
        return [
            f"The best step, {best:,}, is in the warm-up of {warmup:,} steps, in which little is learned: look at the "
            "curves in history.png, try a lower --optimizer.learning_rate or more --training.epochs, and evaluate more "
            "often with a lower --training.eval_every."
        ]
    return []
