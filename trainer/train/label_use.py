"""What a run makes of its labels: the scale of numbers, the class that precision and F1 are of, and the best's metric.

It is decided when a run starts and kept with it: an evaluation on other data makes the same of its labels.
"""

import dataclasses

from trainer.data import label_scale, tasks
from trainer.data.label_scale import LabelScale, RatingRange
from trainer.data.manifests import Manifest
from trainer.errors import Problem

# Undefined on a split without an example of the class, or with no other.
_NEEDS_EXAMPLES = ("roc_auc", "average_precision")
# 0, or undefined, at every step if there is no example of the class.
_OF_A_CLASS = ("precision", "recall", "f1")
MAX_SHOWN_NAMES = 20


@dataclasses.dataclass(frozen=True)
class LabelUse:
    scale: LabelScale | None  # None for classes and labels, and for a run from before numbers were standardized.
    positive_class: str | None  # What precision, recall and F1 are of. None: they are means over the classes.
    rating_range: RatingRange | None = None  # Of numbers that are ratings. None for others.


def choose_label_use(folder: str, manifest: Manifest, positive_class: str) -> LabelUse:
    """The label use of a run that starts now on the data set in `folder`. `positive_class` is the setting, "" if unset.

    Reads the train shards of numbers. Raises what reading them does.
    """
    if manifest.kind == "regression":
        labels = label_scale.read_train_labels(folder, manifest)
        return LabelUse(label_scale.fit_scale(labels), None, label_scale.find_rating_range(labels))
    return LabelUse(None, positive_class or _default_class(manifest))


def _default_class(manifest: Manifest) -> str | None:
    """Of two classes the one that train has fewer examples of, the last of equals. None of more, or of labels.

    A task's own convention comes first, as GLUE's F1 of paraphrases.
    """
    if manifest.classes != 2 or manifest.kind != "classification":
        return None
    spec = tasks.TASKS.get(manifest.task)
    if spec and spec.positive_class in manifest.labels:
        return spec.positive_class
    counts = manifest.splits["train"].label_counts
    first, last = manifest.labels
    return first if counts[first] < counts[last] else last


def find_label_problems(manifest: Manifest, positive_class: str, metric: str) -> list[Problem]:
    """What of data.positive_class ("" if unset) and training.best_metric does not suit the data set."""
    problems = []
    if positive_class and manifest.kind == "multi_label":
        required = "be left out where a text may have several labels"
        problems.append(Problem("data.positive_class", required, positive_class))
    elif positive_class and positive_class not in manifest.labels:
        names = f"be a class of the data set: {format_names(manifest.labels)}"
        required = names if manifest.labels else "be left out for labels that are numbers"
        problems.append(Problem("data.positive_class", required, positive_class))
    known = tasks.METRICS[manifest.kind]
    if metric not in known:
        required = f"be one of {', '.join(known)} for {tasks.KIND_NAMES[manifest.kind]}"
        problems.append(Problem("training.best_metric", required, metric))
    of_class = positive_class or _default_class(manifest)
    if not problems and (metric in _NEEDS_EXAMPLES or (metric in _OF_A_CLASS and of_class)):
        validation = manifest.splits["validation"]
        counts = {name: validation.label_counts[name] for name in ([of_class] if of_class else manifest.labels)}
        refused = (0, validation.examples) if metric in _NEEDS_EXAMPLES else (0,)
        one_sided = [name for name, count in counts.items() if count in refused]
        if manifest.kind == "multi_label":  # A label is left out of a mean that it does not define.
            one_sided = one_sided if not any(counts.values()) else []
        if one_sided:
            others = " and of others" if metric in _NEEDS_EXAMPLES else ""
            name = one_sided[0]
            required = f"be a metric that validation defines: it needs examples of {name!r}{others} there"
            received = f"{metric}, where {counts[name]:,} of {validation.examples:,} validation texts are of {name!r}"
            advice = (
                "Choose another metric with --training.best_metric, such as loss, or prepare the data with another "
                "validation: prepare_data.py --validation_source, or another --seed."
            )
            problems.append(Problem("training.best_metric", required, received, advice))
    return problems


def find_rating_problems(manifest: Manifest, use: LabelUse, metric: str) -> list[Problem]:
    """Whether training.best_metric is one of ratings, and the numbers to predict are none."""
    if manifest.kind != "regression" or metric not in tasks.RATING_METRICS or use.rating_range:
        return []
    required = f"be a metric of any numbers where labels are not whole, or not within {label_scale.MAX_RATINGS} of them"
    return [Problem("training.best_metric", required, metric)]


def find_decision_problems(manifest: Manifest, *, calibrate: bool, threshold_metric: str | None) -> list[Problem]:
    """What of training.calibrate and training.threshold_metric does not suit the data set."""
    problems = []
    if calibrate and manifest.kind == "regression":
        advice = "Leave out --training.calibrate: a temperature is of probabilities."
        problems.append(Problem("training.calibrate", "be off for labels that are numbers", "on", advice))
    if threshold_metric and manifest.classes != 2 and manifest.kind != "multi_label":
        received = f"{threshold_metric}, for {manifest.classes or 'no'} classes"
        problems.append(Problem("training.threshold_metric", "be left out unless there are two classes", received))
    return problems


def format_names(labels: tuple[str, ...] | list[str]) -> str:
    """The first class names; "numbers" for none."""
    shown = ", ".join(labels[:MAX_SHOWN_NAMES]) or "numbers"
    return shown if len(labels) <= MAX_SHOWN_NAMES else f"{shown}, ... ({len(labels):,} in all)"
