"""The worst errors."""

import dataclasses

import numpy as np

from trainer.report import error_analysis
from trainer.report.occlusion import Occlusion
from trainer.report.page import Passage, Piece


def test_the_worst_errors_are_wrong_and_in_the_order_of_their_loss(facts):
    test = facts.predictions["test"]
    rows = error_analysis.worst_errors(test, by_class=True)
    assert (test.logits[rows].argmax(axis=1) != test.labels[rows]).all()
    assert (np.diff(test.losses[rows]) <= 0).all()
    assert len(rows) == min(error_analysis.MAX_ERRORS, int(np.sum(test.predicted != test.labels)))


def test_an_error_has_its_text_and_both_classes(facts):
    row = int(error_analysis.worst_errors(facts.predictions["test"], by_class=True)[0])
    section = error_analysis.section(facts)
    passage = section.passages[0]
    assert passage.pieces == [Piece(facts.columns["test"].texts[row])]
    assert passage.facts[0] == f"label: {facts.manifest.labels[facts.predictions['test'].labels[row]]}"
    assert not section.method


def test_marks_are_relative_to_the_largest_effect():
    marked = error_analysis.mark(Occlusion(0, ("a", " ", "b", "c"), (0.2, float("nan"), -0.1, 0.001)))
    assert [piece.weight > 0 for piece in marked] == [True, False, False, False]
    assert marked[2].weight == -marked[0].weight / 2
    assert marked[3].weight == 0


def test_a_text_that_nothing_changes_has_no_marks():
    assert error_analysis.mark(Occlusion(0, ("a", "b"), (0.0, float("nan")))) == [Piece("ab")]


def test_a_long_text_is_cut_and_says_so():
    cut = error_analysis.cut(Passage([], [Piece("a" * 700, 0.5), Piece("b" * 600)]))
    assert sum(len(piece.text) for piece in cut.pieces) == error_analysis.MAX_CHARACTERS + len(" ...")
    assert cut.rest == "500 more characters"


def test_marked_errors_explain_the_marks(facts):
    row = int(error_analysis.worst_errors(facts.predictions["test"], by_class=True)[0])
    text = facts.columns["test"].texts[row]
    occlusions = [Occlusion(row, (text[:4], text[4:]), (0.5, float("nan")))]
    section = error_analysis.section(dataclasses.replace(facts, occlusions=occlusions))
    assert section.passages[0].pieces[0].weight > 0
    assert "occlusion" in section.method[0]


def test_a_model_that_is_always_right_has_no_errors(facts):
    test = facts.predictions["test"]
    right = dataclasses.replace(test, logits=np.eye(2, dtype=np.float32)[test.labels])
    section = error_analysis.section(dataclasses.replace(facts, predictions={"test": right}))
    assert not section.passages


def test_numbers_have_the_largest_errors(numbers):
    section = error_analysis.section(numbers)
    assert len(section.passages) == error_analysis.MAX_ERRORS
