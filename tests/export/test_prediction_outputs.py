"""What is printed of a prediction, and which columns it has in a table."""

import dataclasses
import json

import numpy as np
import pytest

from trainer.errors import UserError
from trainer.export import prediction_outputs
from trainer.export.predict import ScoredInput
from trainer.export.prediction_outputs import Shown

NAMES = ["bad", "fair", "good"]
ALL, TOP_2, NUMBER = Shown(NAMES, None, False), Shown(NAMES, 2, False), Shown([], None, False)
NUMBERED = Shown(NAMES, None, True)


def predicted(*scores, text="some text"):
    return ScoredInput(7, {"text": text}, [text], np.array(scores, np.float32) if scores else None)


THREE = predicted(0.25, 0.125, 0.625)


def test_a_line_for_people_has_the_likeliest_classes():
    assert prediction_outputs.format_row(THREE, ALL) == "good  0.6250  some text"
    assert prediction_outputs.format_row(THREE, TOP_2) == "good  0.6250  bad   0.2500  some text"
    assert prediction_outputs.format_row(THREE, NUMBERED) == "      7  good  0.6250  some text"
    assert prediction_outputs.format_row(predicted(-1.5), NUMBER) == "  -1.5000  some text"


def test_a_json_line_has_all_classes_or_the_likeliest():
    rows = [json.loads(prediction_outputs.format_json(THREE, shown)) for shown in (ALL, TOP_2, NUMBERED)]
    every = {"text": "some text", "label": "good", "scores": {"bad": 0.25, "fair": 0.125, "good": 0.625}}
    assert rows == [every, every | {"scores": {"good": 0.625, "bad": 0.25}}, every | {"line": 7}]
    assert list(rows[1]["scores"]) == ["good", "bad"]
    assert json.loads(prediction_outputs.format_json(predicted(-1.5), NUMBER)) == {"text": "some text", "score": -1.5}


def test_a_blank_text_has_an_output_without_a_prediction():
    blank = predicted(text="")
    assert prediction_outputs.format_row(blank, ALL).split() == ["-", "-"]
    assert prediction_outputs.format_row(blank, NUMBER).split() == ["-"]
    assert json.loads(prediction_outputs.format_json(blank, ALL)) == {"text": "", "label": None, "scores": None}
    assert json.loads(prediction_outputs.format_json(blank, NUMBER)) == {"text": "", "score": None}
    assert prediction_outputs.added_values(blank, NUMBERED, 5) == [7, None, None, None, None]


@pytest.mark.parametrize("format_line", [prediction_outputs.format_row, prediction_outputs.format_json])
def test_an_output_is_one_line_for_every_reader(format_line):
    text = "a\nb\r\nc\u2028d\x85e\x0bf\x0cg\u2029h\x1ci"
    printed = format_line(predicted(0.25, 0.125, 0.625, text=text), ALL)
    assert len(printed.splitlines()) == 1
    if format_line is prediction_outputs.format_json:
        assert json.loads(printed)["text"] == text
    lines = format_line(predicted(0.25, 0.75), Shown(["one", "two\nlines"], None, False))
    assert len(lines.splitlines()) == 1


def test_equal_scores_keep_the_order_of_the_classes():
    assert [name for name, _ in prediction_outputs.rank(predicted(0.5, 0.5, 0.5).scores, ALL)] == NAMES


@pytest.mark.parametrize(
    ("shown", "columns", "values"),
    [
        (ALL, ["label", "score_bad", "score_fair", "score_good"], ["good", 0.25, 0.125, 0.625]),
        (TOP_2, ["label", "score", "label_2", "score_2"], ["good", 0.625, "bad", 0.25]),
        (Shown(NAMES, 9, True), ["line", *"label score label_2 score_2 label_3 score_3".split()], None),  # noqa: SIM905
        (NUMBERED, ["line", "label", "score_bad", "score_fair", "score_good"], [7, "good", 0.25, 0.125, 0.625]),
    ],
)
def test_a_table_has_columns_for_what_is_shown(shown, columns, values):
    added = prediction_outputs.added_columns(shown, ["text"], "a.csv")
    assert list(added) == columns
    actual = prediction_outputs.added_values(THREE, shown, len(added))
    assert [type(value) for value in actual] == list(added.values())
    assert values is None or actual == values


def test_a_column_of_the_table_is_never_replaced():
    added = prediction_outputs.added_columns(ALL, ["text", "label"], "a.csv")
    assert list(added) == [f"predicted_{name}" for name in ("label", "score_bad", "score_fair", "score_good")]
    with pytest.raises(UserError, match=r"a\.csv .*predicted_label"):
        prediction_outputs.added_columns(ALL, ["text", "label", "predicted_label"], "a.csv")


def test_json_has_no_values_that_json_lacks():
    row = {"a": float("nan"), "b": float("inf"), "c": np.datetime64("2026-11-28")}
    assert prediction_outputs.dump_json(row) == '{"a": null, "b": null, "c": "2026-11-28"}'


def test_the_label_of_the_export_comes_first():
    """A threshold may decide for a class of lower score."""
    decided = dataclasses.replace(THREE, label="fair")
    assert prediction_outputs.format_row(decided, ALL) == "fair  0.1250  some text"
    row = json.loads(prediction_outputs.format_json(decided, TOP_2))
    assert (row["label"], row["scores"]) == ("fair", {"fair": 0.125, "good": 0.625})
    assert list(row["scores"]) == ["fair", "good"]
    assert prediction_outputs.added_values(decided, ALL, 4)[0] == "fair"
    assert prediction_outputs.added_values(decided, TOP_2, 4)[::2] == ["fair", "good"]


# --- Several labels -------------------------------------------------------------------------------

SEVERAL, SEVERAL_TOP_2 = (Shown(NAMES, top_k, False, several_labels=True) for top_k in (None, 2))


def labeled(*labels):
    return ScoredInput(7, {"text": "t"}, ["t"], np.array([0.75, 0.25, 0.875], np.float32), labels=labels)


BLANK = ScoredInput(8, {"text": ""}, [""], None)


def test_several_labels_are_shown_by_falling_score():
    assert prediction_outputs.format_row(labeled(0, 2), SEVERAL) == "good 0.8750, bad 0.7500  t"
    assert prediction_outputs.format_row(labeled(), SEVERAL) == "no label  t"
    assert prediction_outputs.format_row(labeled(), SEVERAL_TOP_2) == "good  0.8750  bad   0.7500  t"
    assert prediction_outputs.format_row(BLANK, SEVERAL).split() == ["-"]


def test_several_labels_are_a_list_in_json():
    every = {"text": "t", "labels": ["good", "bad"], "scores": {"bad": 0.75, "fair": 0.25, "good": 0.875}}
    assert json.loads(prediction_outputs.format_json(labeled(0, 2), SEVERAL)) == every
    top = json.loads(prediction_outputs.format_json(labeled(1), SEVERAL_TOP_2))
    assert (top["labels"], list(top["scores"])) == (["fair"], ["good", "bad"])
    assert json.loads(prediction_outputs.format_json(BLANK, SEVERAL)) == {"text": "", "labels": None, "scores": None}


def test_several_labels_are_one_column_of_a_table():
    added = prediction_outputs.added_columns(SEVERAL, ["text", "label"], "a.csv")
    assert added == {"labels": list, **{f"score_{name}": np.float32 for name in NAMES}}
    assert prediction_outputs.added_values(labeled(0, 2), SEVERAL, 4) == [["good", "bad"], 0.75, 0.25, 0.875]
    assert prediction_outputs.added_values(BLANK, SEVERAL, 4) == [None] * 4
    added = prediction_outputs.added_columns(SEVERAL_TOP_2, ["text"], "a.csv")
    assert list(added) == ["labels", "label", "score", "label_2", "score_2"]
    assert prediction_outputs.added_values(labeled(1), SEVERAL_TOP_2, 5) == [["fair"], "good", 0.875, "bad", 0.75]
