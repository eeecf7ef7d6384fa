import re
import typing

import pytest

from trainer.config import value_types
from trainer.data import tasks


@pytest.mark.parametrize("spec", tasks.TASKS.values(), ids=tasks.TASKS)
def test_what_is_downloaded_has_a_hash(spec):
    assert (spec.url is None) == (spec.sha256 is None)
    if spec.url:
        assert spec.url.startswith("https://")
        assert re.fullmatch("[0-9a-f]{64}", spec.sha256)


def test_class_names_are_in_the_order_of_the_tutorial():
    assert tasks.TASKS["imdb"].labels == tasks.TASKS["movie_snippets"].labels == ("negative", "positive")
    assert tasks.TASKS["csv"].labels is None  # The file decides.


def test_every_kind_has_a_metric_that_selects_the_best_checkpoint():
    assert tuple(tasks.MAIN_METRIC) == tuple(tasks.METRICS) == tasks.KINDS
    assert all(tasks.MAIN_METRIC[kind] in tasks.METRICS[kind] for kind in tasks.KINDS)
    of_some_kind = {name for names in tasks.METRICS.values() for name in names}
    assert set(typing.get_args(value_types.Metric)) == of_some_kind
    assert {*tasks.LOWER_IS_BETTER, *tasks.SCORE_METRICS} <= of_some_kind


def test_the_best_has_the_better_metric_and_then_the_lower_loss():
    assert tasks.rank("f1", 0.9, 0.7) > tasks.rank("f1", 0.8, 0.1)
    assert tasks.rank("f1", 0.9, 0.6) > tasks.rank("f1", 0.9, 0.7)
    for metric in tasks.LOWER_IS_BETTER:
        assert tasks.rank(metric, 0.1, 0.7) > tasks.rank(metric, 0.2, 0.6)


@pytest.mark.parametrize("spec", tasks.TASKS.values(), ids=tasks.TASKS)
def test_a_positive_class_is_one_of_two(spec):
    assert spec.positive_class is None or (spec.positive_class in spec.labels and len(spec.labels) == 2)
