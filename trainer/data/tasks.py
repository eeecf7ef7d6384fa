"""TASKS: the data sets that prepare_data.py knows by name.

A new one is an entry here, a reader in sources.py and its call in task_rows.read_rows.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class TaskSpec:
    """What is fixed about a data set."""

    description: str
    labels: tuple[str, ...] | None  # Class names by index. None if the source decides.
    url: str | None = None  # The address of the original. None if it is part of a package or the user's own file.
    sha256: str | None = None  # The hash of the file at `url`.


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
    "csv": TaskSpec(description="tables of your own, or a folder with a folder for each class", labels=None),
}

KINDS = ("classification", "regression")

# The metric that selects the best checkpoint unless training.best_metric names another, and that a summary shows first.
MAIN_METRIC = {"classification": "accuracy", "regression": "pearson"}
# What training.best_metric can be. config.schema has the names of both kinds.
METRICS = {
    "classification": ("accuracy", "precision", "recall", "f1", "macro_f1", "roc_auc", "average_precision", "loss"),
    "regression": ("pearson", "spearman", "mean_squared_error", "accuracy", "quadratic_kappa", "loss"),
}
# Of numbers, those that only labels on a scale of few whole numbers have (label_scale.find_rating_range).
RATING_METRICS = ("accuracy", "quadratic_kappa")
LOWER_IS_BETTER = ("loss", "mean_squared_error")
