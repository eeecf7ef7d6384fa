"""Labels that are numbers."""

import numpy as np

from trainer.report import numbers as section_of_numbers


def test_numbers_have_a_scatter_and_residuals(numbers):
    section = section_of_numbers.section(numbers)
    assert len(section.figures) == 2
    assert "within" in section.sentences[0]


def test_predictions_that_hide_at_the_mean_are_named():
    labels = np.linspace(80, 100, 50)
    assert "drawn to the mean" in section_of_numbers.describe(labels, 90 + 0.3 * (labels - 90))
    assert "drawn to the mean" not in section_of_numbers.describe(labels, labels + 1)
    assert "1 too high" in section_of_numbers.describe(labels, labels + 1)


def test_classes_have_none(facts):
    assert section_of_numbers.section(facts) is None
