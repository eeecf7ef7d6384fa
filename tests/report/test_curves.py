"""The section on the training."""

import dataclasses

import pytest

from trainer.report import curves


def validation(*losses):
    return [{"step": 10 * (i + 1), "split": "validation", "loss": loss} for i, loss in enumerate(losses)]


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ((0.5, 0.4, 0.6), "would overfit"),
        ((0.5, 0.4, 0.41), "about the same"),
        ((0.5, 0.4, 0.3), "more steps"),
        ((0.5, 0.4), ""),
    ],
)
def test_the_loss_after_the_best_step_is_described(losses, said):
    described = curves.describe_gap(validation(*losses), 20)
    assert said in described
    assert bool(described) == bool(said)


def test_the_section_has_loss_and_metric(facts):
    section = curves.section(facts)
    assert len(section.figures) == 2
    assert "100 steps" in section.sentences[0]


def test_a_value_that_is_no_number_is_not_drawn(facts):
    line = {"step": 55, "split": "train", "loss": float("nan")}
    drawn = curves.draw_curve(dataclasses.replace(facts, history=[*facts.history, line]), "loss")
    assert "nan" not in drawn.lower()
    assert drawn == curves.draw_curve(facts, "loss")


def test_numbers_have_curves(numbers):
    assert curves.section(numbers).figures[1].caption.startswith("The pearson")
