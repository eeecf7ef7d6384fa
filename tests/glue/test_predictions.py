import json

import numpy as np
import pytest

from trainer.data import tasks
from trainer.export import predict
from trainer.glue import predictions
from trainer.runtime.signals import StopRequest


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        *((task, ["0", "1"]) for task in ("cola", "sst2", "mrpc", "qqp", "wnli")),
        *((task, ["entailment", "not_entailment"]) for task in ("qnli", "rte")),
    ],
)
def test_labels_are_those_that_glue_expects(task, expected):
    assert predictions.submission_labels(task, np.array([[0.9, 0.1], [0.2, 0.8]])) == expected


def test_three_classes_have_names_and_scores_are_within_their_range():
    for task in ("mnli", tasks.AX):
        assert predictions.submission_labels(task, np.eye(3)) == ["entailment", "neutral", "contradiction"]
    assert predictions.submission_labels("stsb", np.array([[-0.3], [2.34567], [5.2]])) == ["0.000", "2.346", "5.000"]


def test_scores_are_kept_until_the_texts_or_the_run_change(finished_run, tmp_path):
    (tmp_path / "export").symlink_to(finished_run / "export")
    (tmp_path / "result.json").write_text("{}")
    rows, request = [["a wonderful film"], ["an awful, dull film"]], StopRequest()
    scores = predictions.score(str(tmp_path), "SST-2", rows, request)
    _, signature = predict.load_export(str(finished_run / "export"))
    assert scores == pytest.approx(np.array(list(predict.score_texts(signature, rows))), abs=1e-5)
    kept = tmp_path / "glue/SST-2.json"
    content = json.loads(kept.read_text())
    kept.write_text(json.dumps(content | {"scores": [[1, 0], [1, 0]]}))
    assert predictions.score(str(tmp_path), "SST-2", rows, request).tolist() == [[1, 0], [1, 0]]
    (tmp_path / "result.json").write_text('{"seconds": 1}')
    assert predictions.score(str(tmp_path), "SST-2", rows, request) == pytest.approx(scores)
    changed = predictions.score(str(tmp_path), "SST-2", rows[::-1], request)
    assert changed == pytest.approx(scores[::-1], abs=1e-5)
