import pytest
from fakes.glue_files import write_glue

from trainer.data import glue, tasks
from trainer.errors import UserError
from trainer.glue import suite


def test_every_task_of_glue_is_in_the_suite():
    assert set(suite.SUITE) == {*tasks.GLUE, tasks.AX} == set(glue.LAYOUTS)
    assert sorted(suite.SUBMISSION_FILES) == sorted(
        ["CoLA", "SST-2", "MRPC", "QQP", "STS-B", "MNLI-m", "MNLI-mm", "QNLI", "RTE", "WNLI", "AX"]
    )


@pytest.mark.parametrize("task", sorted(tasks.GLUE))
def test_the_metrics_of_a_task_are_of_its_kind(task):
    spec, kind = suite.SUITE[task], "classification" if tasks.TASKS[task].labels else "regression"
    metrics = {figure.metric for figure in spec.figures}
    assert {spec.best_metric} <= metrics <= set(tasks.METRICS[kind])
    # GLUE's F1 is that of the paraphrases.
    assert "f1" not in metrics or tasks.TASKS[task].positive_class in ("equivalent", "duplicate")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["cola", "rte"], []),
        (["mnli", "ax"], []),
        (["ax"], ["mnli"]),
        (["cola", "cola"], ["once"]),
        ([], ["once"]),
        (["snli", "ax"], ["snli", "mnli"]),
    ],
)
def test_what_is_wrong_with_the_tasks_is_found(names, words):
    problems = suite.find_task_problems(names)
    assert [problem.setting for problem in problems] == ["--tasks"] * len(words)
    assert all(word in str(problem) for word, problem in zip(words, problems, strict=True))


def test_the_files_to_predict_are_read_and_all_that_lack_are_named(tmp_path):
    folder = write_glue(tmp_path / "glue_data")
    inputs = suite.read_submission_inputs(str(folder), list(suite.SUITE))
    assert tuple(inputs) == suite.SUBMISSION_FILES
    (folder / "RTE/test.tsv").unlink()
    (folder / "diagnostic/diagnostic.tsv").unlink()
    with pytest.raises(UserError) as caught:
        suite.read_submission_inputs(str(folder), list(suite.SUITE))
    assert [problem.setting for problem in caught.value.problems] == ["--glue_dir"] * 2
    assert "RTE/test.tsv" in str(caught.value)
    assert "diagnostic.tsv" in str(caught.value)
