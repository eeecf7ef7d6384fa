import json

import pytest

from trainer.data import tasks
from trainer.export import predict
from trainer.glue import predictions
from trainer.runtime.signals import StopRequest


def decided(*labels):
    return [{"scores": [0.5], "label": label} for label in labels]


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        *((task, ["0", "1"]) for task in ("cola", "sst2", "mrpc", "qqp", "wnli")),
        *((task, ["entailment", "not_entailment"]) for task in ("qnli", "rte")),
    ],
)
def test_labels_are_those_that_glue_expects(task, expected):
    assert predictions.submission_labels(task, decided(*tasks.TASKS[task].labels)) == expected


def test_three_classes_have_names_and_scores_are_within_their_range():
    classes = ["entailment", "neutral", "contradiction"]
    for task in ("mnli", tasks.AX):
        assert predictions.submission_labels(task, decided(*classes)) == classes
    numbers = [{"scores": [score], "label": None} for score in (-0.3, 2.34567, 5.2)]
    assert predictions.submission_labels("stsb", numbers) == ["0.000", "2.346", "5.000"]


def test_a_label_is_decided_by_the_threshold_and_not_by_the_larger_score():
    below_its_threshold = {"scores": [0.4, 0.6], "label": "not_duplicate"}
    assert predictions.submission_labels("qqp", [below_its_threshold]) == ["0"]


def test_predictions_are_kept_until_the_texts_or_the_run_change(finished_run, tmp_path):
    (tmp_path / "export").symlink_to(finished_run / "export")
    (tmp_path / "result.json").write_text("{}")
    rows, request = [["a wonderful film"], ["an awful, dull film"]], StopRequest()
    found = predictions.predict(str(tmp_path), "SST-2", rows, request)
    _, signature = predict.load_export(str(finished_run / "export"))
    for row, (scores, label, _) in zip(found, predict.predict_texts(signature, rows), strict=True):
        assert row["scores"] == pytest.approx(scores.tolist(), abs=1e-5)
        assert row["label"] == label
    kept = tmp_path / "glue/SST-2.json"
    content = json.loads(kept.read_text())
    other = [{"scores": [1, 0], "label": "positive"}] * 2
    kept.write_text(json.dumps(content | {"predicted": other}))
    assert predictions.predict(str(tmp_path), "SST-2", rows, request) == other
    (tmp_path / "result.json").write_text('{"seconds": 1}')
    again = predictions.predict(str(tmp_path), "SST-2", rows, request)
    assert [row["label"] for row in again] == [row["label"] for row in found]
    changed = predictions.predict(str(tmp_path), "SST-2", rows[::-1], request)
    for row, expected in zip(changed, found[::-1], strict=True):
        assert row["scores"] == pytest.approx(expected["scores"], abs=1e-5)
