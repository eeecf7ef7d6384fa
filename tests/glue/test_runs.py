import pytest

from trainer.glue import runs


@pytest.mark.parametrize(
    ("task", "given", "expected"),
    [
        ("cola", (), ["training.best_metric=matthews"]),
        ("mrpc", (), ["training.best_metric=f1", "training.epochs=5"]),
        ("mrpc", ("training.steps=3",), ["training.best_metric=f1", "training.steps=3"]),
        (
            "stsb",
            ("training.best_metric=spearman", "seed=1"),
            ["training.best_metric=pearson", "training.best_metric=spearman", "seed=1"],
        ),
    ],
)
def test_a_user_s_settings_come_after_those_of_the_task(task, given, expected):
    assert runs.task_overrides(task, given) == expected


def result(metric, value, loss):
    return {"best_metric": metric, "validation": {metric: value, "loss": loss}, "test": {metric: 1 - value}}


def test_the_best_seed_is_that_of_validation_and_never_of_dev():
    assert runs.best_seed({0: result("f1", 0.8, 0.5), 3: result("f1", 0.9, 0.7), 7: result("f1", 0.9, 0.6)}) == 7
    assert runs.best_seed({0: result("f1", 0.8, 0.5), 3: result("f1", 0.8, 0.5)}) == 0
    losses = {seed: {"best_metric": "loss", "validation": {"loss": loss}} for seed, loss in ((0, 0.5), (1, 0.4))}
    assert runs.best_seed(losses) == 1
