"""Parts of test."""

import dataclasses

import numpy as np
import pytest

from trainer.report import slices


def test_every_row_is_in_one_group_of_lengths(facts):
    groups = slices.by_length(facts.columns["test"])
    assert sorted(np.concatenate(list(groups.values()))) == list(range(120))
    lengths = facts.columns["test"].lengths()
    for name, rows in groups.items():
        low, high = (int(bound) for bound in name.split(" to "))
        assert ((lengths[rows] >= low) & (lengths[rows] <= high)).all()


def test_rare_values_are_counted_together():
    values = [f"v{i}" for i in range(20) for _ in range(20 - i)]
    groups = slices.by_value(values)
    assert len(groups) == slices.MAX_VALUES + 1
    assert list(groups)[-1] == "(8 other values)"
    assert sum(map(len, groups.values())) == len(values)


@pytest.fixture
def with_source(facts):
    """Facts whose test has a kept column; all errors are of one of its values."""
    right = facts.predictions["test"].predicted == facts.predictions["test"].labels
    source = np.where(right, "web", "phone")
    source[:40] = "phone"
    columns = dataclasses.replace(facts.columns["test"], kept={"source": source.tolist()})
    return dataclasses.replace(facts, columns={**facts.columns, "test": columns})


def test_a_kept_column_has_a_table_and_its_worst_value_is_named(with_source):
    section = slices.section(with_source)
    table = section.tables[1]
    assert table.caption == "Test by source"
    assert sum(int(row[1].text) for row in table.rows) == 120
    assert "it is worst for phone" in section.sentences[1]


def test_small_groups_are_not_compared(facts):
    groups = {"a": np.arange(10), "b": np.arange(10, 120)}
    assert "too few" in slices.describe(facts, groups, "x")


def test_numbers_have_their_absolute_error(numbers):
    assert slices.section(numbers).tables[0].head[2] == "mean absolute error"


def test_another_kind_has_no_slices(facts):
    other = dataclasses.replace(facts, manifest=dataclasses.replace(facts.manifest, kind="other"))
    assert slices.section(other) is None
