"""Labels that are likely wrong."""

import dataclasses
import json

import numpy as np
import pytest

from trainer.report import label_errors


@pytest.fixture
def flipped(facts):
    """(facts whose model is always right, the rows of test whose labels were changed)."""
    rng, predictions = np.random.default_rng(3), {}
    for name, p in facts.predictions.items():
        logits = np.eye(2, dtype=np.float32)[p.labels] * rng.uniform(1, 4, (len(p.labels), 1)).astype(np.float32)
        predictions[name] = dataclasses.replace(p, logits=logits)
    rows = [3, 50, 77]
    labels = facts.columns["test"].labels.copy()
    labels[rows] = 1 - labels[rows]
    columns = {**facts.columns, "test": dataclasses.replace(facts.columns["test"], labels=labels)}
    return dataclasses.replace(facts, predictions=predictions, columns=columns), rows


def test_changed_labels_are_found(flipped):
    facts, rows = flipped
    suspects = label_errors.find_suspects(facts)
    assert sorted(suspect.row for suspect in suspects) == rows
    assert {suspect.split for suspect in suspects} == {"test"}
    assert [s.confidence for s in suspects] == sorted(s.confidence for s in suspects)


def test_the_lines_have_text_label_and_suggestion(flipped):
    facts, _ = flipped
    suspects = label_errors.find_suspects(facts)
    for line, suspect in zip(label_errors.write(facts).splitlines(), suspects, strict=True):
        content = json.loads(line)
        assert content["text"] == facts.columns["test"].texts[suspect.row]
        assert {content["label"], content["suggested"]} == {"negative", "positive"}


def test_no_more_than_the_listed_share_is_listed(facts):
    assert len(label_errors.find_suspects(facts)) == int(np.ceil(0.04 * 180))


def test_train_is_looked_at_where_it_was_cross_checked(facts):
    labels = facts.columns["train"].labels
    sure = dataclasses.replace(
        facts.predictions["test"], labels=labels, logits=4 * np.eye(2, dtype=np.float32)[labels], ids=list(range(240))
    )
    checked = np.where(np.eye(2)[labels] == 1, 0.8, 0.2)
    doubted = dataclasses.replace(
        facts,
        predictions={"train": sure},
        cross_checked={"train": np.where(np.arange(240)[:, None] == 5, 1 - np.round(checked), checked)},
    )
    assert [suspect.row for suspect in label_errors.find_suspects(doubted)] == [5]
    assert "cross_check" in label_errors.section(facts).method[1]
    assert "Cross-checked" in label_errors.section(doubted).method[1]


def test_two_models_are_joined_by_their_odds(facts):
    own = facts.predictions["test"].scores
    joined = label_errors.judge(dataclasses.replace(facts, cross_checked={"test": np.full_like(own, 0.5)}), "test")

    def log_odds(p):
        return np.log(p[:, 1] / p[:, 0])

    assert log_odds(joined) == pytest.approx(log_odds(own) / 2, abs=1e-4)


def test_numbers_have_no_section(numbers):
    assert label_errors.section(numbers) is None
