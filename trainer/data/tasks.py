"""TASKS: the data sets that prepare_data.py knows by name. METRICS: what is measured of each kind of labels.

A new data set is an entry of TASKS, and one of task_rows.READERS: a function in a module of its own.
"""

import dataclasses

# The share of train that becomes validation where a source has test and no validation: the tutorial's.
VALIDATION_FRACTION_OF_TRAIN = 0.2


@dataclasses.dataclass(frozen=True)
class TaskSpec:
    """What is fixed about a data set."""

    description: str
    labels: tuple[str, ...] | None  # Class names by index. None for numbers, or if the source decides (csv).
    source: str | None = None  # What --source has to name. None if the task has a source of its own.
    url: str | None = None  # The address of the original. None if it is part of a package or the user's own file.
    sha256: str | None = None  # The hash of the file at `url`.
    positive_class: str | None = None  # What precision, recall and F1 are of by convention.
    validation_fraction: float = VALIDATION_FRACTION_OF_TRAIN


def _glue(description: str, labels: tuple[str, ...] | None, positive_class: str | None = None) -> TaskSpec:
    """A task of GLUE. Its dev is the test split; a tenth of train is enough for validation."""
    source = "the task's folder or .zip as GLUE distributes it"
    return TaskSpec(f"GLUE: {description}", labels, source, positive_class=positive_class, validation_fraction=0.1)


# Wang et al., "GLUE: A Multi-Task Benchmark and Analysis Platform for Natural Language Understanding", ICLR 2019.
# Where its files have 0 and 1, these are the names of 0 and 1.
GLUE = {
    "cola": _glue("is a sentence grammatical", ("unacceptable", "acceptable"), "acceptable"),
    "sst2": _glue("the sentiment of phrases of movie reviews", ("negative", "positive"), "positive"),
    "mrpc": _glue("is a sentence a paraphrase of another", ("not_equivalent", "equivalent"), "equivalent"),
    "qqp": _glue("do two questions ask the same", ("not_duplicate", "duplicate"), "duplicate"),
    "stsb": _glue("how similar are two sentences, from 0 to 5", None),
    "mnli": _glue("does a sentence follow from a premise", ("entailment", "neutral", "contradiction")),
    "qnli": _glue("does a sentence answer a question", ("entailment", "not_entailment"), "entailment"),
    "rte": _glue("does a sentence follow from a text", ("entailment", "not_entailment"), "entailment"),
    "wnli": _glue("what does a pronoun refer to", ("not_entailment", "entailment"), "entailment"),
}
# The diagnostic set comes without labels: a model of mnli predicts it for the submission.
AX = "ax"

TASKS = {
    "movie_snippets": TaskSpec(
        description="10,605 movie-review snippets, each rated by about 20 people (Hutto and Gilbert, ICWSM 2014)",
        labels=("negative", "positive"),
    ),
    "imdb": TaskSpec(
        description="50,000 movie reviews (Maas et al., ACL 2011)",
        labels=("negative", "positive"),
        url="https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
        sha256="c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
    ),
    "csv": TaskSpec(
        description="tables of your own, or a folder with a folder for each class",
        labels=None,
        source="a table, or a folder with a folder for each class",
    ),
    **GLUE,
    AX: _glue("the diagnostic set, without labels", GLUE["mnli"].labels),
}

# One class a text, a number a text, or any number of labels a text, none included.
KINDS = ("classification", "regression", "multi_label")
# What messages call the labels of each.
KIND_NAMES = {"classification": "classes", "regression": "numbers", "multi_label": "several labels a text"}

# The metric that selects the best checkpoint unless training.best_metric names another, and that a summary shows first.
MAIN_METRIC = {"classification": "accuracy", "regression": "pearson", "multi_label": "micro_f1"}
# What training.best_metric can be. config.schema has the names of all kinds.
METRICS = {
    "classification": (
        *("accuracy", "precision", "recall", "f1", "macro_f1", "matthews", "roc_auc", "average_precision", "loss"),
    ),
    "regression": ("pearson", "spearman", "mean_squared_error", "accuracy", "quadratic_kappa", "loss"),
    "multi_label": (
        *("micro_f1", "macro_f1", "average_precision", "micro_average_precision", "subset_accuracy", "loss"),
    ),
}
# Those of scores. A threshold, which decides labels, changes the others alone.
SCORE_METRICS = ("roc_auc", "average_precision", "micro_average_precision", "loss")
# Of numbers, those that only labels on a scale of few whole numbers have (label_scale.find_rating_range).
RATING_METRICS = ("accuracy", "quadratic_kappa")
LOWER_IS_BETTER = ("loss", "mean_squared_error")


def rank(metric: str, value: float, loss: float) -> tuple[float, float]:
    """What is highest for the best of evaluations or runs: the metric, by its direction, then the lower loss."""
    return (-value if metric in LOWER_IS_BETTER else value, -loss)
