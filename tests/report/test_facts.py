"""What a report is made from."""

import dataclasses


def test_the_main_metric_is_that_of_the_best_unless_that_is_the_loss(facts, numbers):
    assert facts.main_metric == "accuracy"
    assert numbers.main_metric == "pearson"
    assert dataclasses.replace(facts, metric="macro_f1").main_metric == "macro_f1"
    assert dataclasses.replace(facts, metric="loss").main_metric == "accuracy"
