"""Calibration before and after temperature."""

import dataclasses

import numpy as np
import pytest

from trainer.report import calibration


@pytest.fixture
def drawn(rng):
    """(logits, labels) of a perfectly calibrated model."""
    logits = rng.normal(0, 1.5, (20_000, 3))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return logits, (shares.cumsum(axis=1) > rng.random((20_000, 1))).argmax(axis=1)


def test_a_calibrated_model_has_almost_no_error(drawn):
    assert calibration.measure(*drawn).error < 0.012


def test_the_error_is_that_of_its_definition():
    logits = np.log(np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]]))
    found = calibration.measure(logits, np.array([0, 1, 0, 0]))
    assert found.error == pytest.approx(0.5 * abs(0.9 - 0.5) + 0.5 * abs(0.6 - 0.5))
    assert found.examples.tolist() == [2, 2]


def test_a_temperature_that_the_run_has_is_used(facts):
    section = calibration.section(
        dataclasses.replace(facts, result={**facts.result, "calibration": {"temperature": 2.0, "applied": True}})
    )
    assert section.tables[0].rows[1][1].text == "2.0000"
    assert "The scores of the export have it." in section.method[0]


def test_the_section_shows_both_errors(facts):
    section = calibration.section(facts)
    test = facts.predictions["test"]
    shown = {cell.value: cell.text for row in section.tables[0].rows for cell in row}
    assert shown["calibration.before"] == f"{calibration.measure(test.logits, test.labels).error:.4f}"
    assert "over-confident" in section.sentences[0] or "under-confident" in section.sentences[0]


def test_numbers_have_no_calibration(numbers):
    assert calibration.section(numbers) is None
