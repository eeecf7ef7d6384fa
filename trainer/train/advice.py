"""What a finished run's figures say about its settings, as sentences for people."""

import numpy as np

from trainer.data.label_scale import LabelScale
from trainer.data.manifests import Manifest
from trainer.evals.metrics import Predictions

_LEARN_MORE = (
    "Train longer (--training.epochs), try another --optimizer.learning_rate, compare with --mode=evaluate --baseline, "
    "and look at the labels with prepare_data.py --inspect."
)


def on_reference(manifest: Manifest, scale: LabelScale | None, test: Predictions) -> list[str]:
    """A sentence if a model that ignores the text is as good on `test`: one that says train's largest class, or mean.

    Without a scale, numbers are not compared.
    """
    if manifest.kind == "classification":
        counts = manifest.splits["train"].label_counts
        largest = max(manifest.labels, key=lambda name: counts[name])
        reference = float(np.mean(test.labels == manifest.labels.index(largest)))
        accuracy = float(np.mean(test.predicted == test.labels))
        if accuracy > reference or accuracy == 1:
            return []
        return [
            f"On test, the accuracy {accuracy:.4f} is no better than that of always saying {largest!r}, the largest "
            f"class of train: {reference:.4f}. {_LEARN_MORE} If classes are rare, --training.best_metric=macro_f1 "
            "counts all classes alike."
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
