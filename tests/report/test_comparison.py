"""The first section: the result, and whether it is worth its cost."""

import dataclasses

import numpy as np
import pytest

from trainer.data.labels import format_number
from trainer.report import comparison


def cells(section):
    rows = [cell for table in section.tables for row in table.rows for cell in row]
    return {cell.value: cell for cell in [*rows, *(cell for _, cell in section.headline)] if cell.value}


@pytest.mark.parametrize("name", ["facts", "numbers"])
def test_every_figure_of_test_is_that_of_the_result(name, request):
    facts = request.getfixturevalue(name)
    shown = cells(comparison.section(facts))
    for metric, value in facts.result["test"].items():
        expected = f"{value:,}" if isinstance(value, int) else format_number(value)
        assert shown[f"test.{metric}"].text == expected


def test_the_result_is_compared_with_a_bag_of_words_and_the_largest_class(facts):
    section = comparison.section(facts)
    assert [name for name, _ in section.headline] == ["test accuracy", "bag of words", "largest class"]
    test = facts.predictions["test"]
    share = np.mean(test.labels == np.bincount(facts.columns["train"].labels).argmax())
    assert section.headline[2][1].text == format_number(share)
    assert section.headline[0][1].note


@pytest.mark.parametrize(
    ("baseline", "said"),
    [("worse", "the encoder earns its cost"), ("same", "is open"), ("better", "does not earn its cost")],
)
def test_the_verdict_is_that_of_the_interval(facts, baseline, said):
    test = facts.predictions["test"]
    perfect = dataclasses.replace(test, logits=np.eye(2, dtype=np.float32)[test.labels])
    other = {"worse": facts.baseline, "same": test, "better": perfect}[baseline]
    assert said in comparison.describe_worth(dataclasses.replace(facts, baseline=other))


def test_without_a_bag_of_words_nothing_is_said_of_it(facts):
    without = dataclasses.replace(facts, baseline=None)
    assert comparison.describe_worth(without) == ""
    assert [name for name, _ in comparison.section(without).headline] == ["test accuracy", "largest class"]


def test_numbers_are_compared_by_their_squared_error(numbers):
    assert "below a bag of words'" in comparison.describe_worth(numbers)
    assert "says a number" in comparison.describe_model(numbers)
    assert comparison.constant_metrics(numbers)["mean_squared_error"] > 20
