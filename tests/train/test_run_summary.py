import math

import matplotlib.image
import pytest
from matplotlib.figure import Figure

from trainer.train import metrics_log, run_summary


def line(step, split, **values):
    return {"step": step, "split": split, "examples": 8, "loss": 1.0 / step, "seconds": float(step), **values}


@pytest.mark.parametrize("metric", ["accuracy", "pearson"])
def test_the_picture_shows_curves_around_an_infinite_loss(tmp_path, metric):
    history = metrics_log.read_history(str(tmp_path / "metrics.jsonl"))
    for step in range(1, 6):  # regression's train lines have no metric
        history.add(line(step, "train") if step != 3 else line(step, "train") | {"loss": math.inf})
        history.add(line(step, "validation", **{metric: step / 5}))
    history.add(line(5, "test", **{metric: 0.9}))
    path = tmp_path / "history.png"
    run_summary.draw_history(history, metric, 4, str(path), "a title")
    assert path.read_bytes().startswith(b"\x89PNG\r\n")
    pixels = matplotlib.image.imread(path)
    height, width, _ = pixels.shape
    assert width >= 1000
    assert height >= 400
    colors = {tuple(color) for color in (pixels[..., :3] * 255).round().astype(int).reshape(-1, 3).tolist()}
    assert {(255, 127, 14), (44, 160, 44)} <= colors  # validation's orange and test's green


def test_the_picture_of_numbers_is_in_their_own_units(tmp_path, monkeypatch):
    history = metrics_log.read_history(str(tmp_path / "metrics.jsonl"))
    history.add(line(1, "train"))
    history.add(line(1, "validation", pearson=0.5))
    history.add(line(1, "test", pearson=0.75))
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))  # To be read.
    title = "a path with $x^$ in it"
    run_summary.draw_history(history, "pearson", 1, str(tmp_path / "history.png"), title, squared_unit=25.0)
    left, right = figures[0].axes
    assert (left.get_title(), right.get_title()) == ("mean squared error", "pearson")
    assert [curve.get_ydata()[0] for curve in left.lines[:3]] == [25.0, 25.0, 25.0]
    assert [curve.get_ydata()[0] for curve in right.lines[:2]] == [0.5, 0.75]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.7, "1 min"),
        (75.2, "1 min 15 s"),
        (3600, "1 h"),
        (3661, "1 h 1 min"),
        (90061, "25 h 1 min"),
    ],
)
def test_durations_have_at_most_two_units(seconds, text):
    assert run_summary.format_duration(seconds) == text


def test_a_table_has_an_aligned_column_for_each_metric():
    rows = [
        ("encoder", {"examples": 1234, "accuracy": 0.5, "roc_auc": 1.0}),
        ("baseline", {"examples": 7, "accuracy": 0.25}),
    ]
    assert run_summary.format_table(rows).splitlines() == [
        "          examples  accuracy  roc auc",
        "encoder      1,234    0.5000   1.0000",
        "baseline         7    0.2500         ",
    ]


def test_the_summary_has_the_results_and_the_next_command():
    metrics = {"examples": 8, "loss": 0.5, "accuracy": 0.75}
    result = {
        "steps": 1200,
        "seconds": 75,
        "best_step": 30,
        "validation": metrics,
        "test": metrics | {"accuracy": 0.625},
    }
    summary = run_summary.format_summary(result, "runs/mine", "runs/mine/export", "runs/mine/tensorboard")
    for expected in ("1,200 steps in 1 min 15 s", "best at step 30", "0.7500", "0.6250", "runs/mine/result.json"):
        assert expected in summary
    assert "scripts/predict.py --model=runs/mine/export" in summary


def test_the_summary_s_paths_can_be_copied_to_a_shell():
    metrics = {"examples": 4, "loss": 0.5}
    result = {"steps": 1, "seconds": 1, "best_step": 1, "validation": metrics, "test": metrics}
    summary = run_summary.format_summary(result, "my runs/a", "my runs/a/export", "my runs/a/tensorboard")
    assert "predict.py --model='my runs/a/export' " in summary
    assert "results    'my runs/a/result.json', " in summary
    assert "report " not in summary
    assert "report     'my runs/a/report.html'" in run_summary.format_summary(
        result, "my runs/a", "my runs/a/export", "my runs/a/tensorboard", "my runs/a/report.html"
    )
    pairs = run_summary.format_summary(result | {"texts": 2}, "m", "m/export", "m/tensorboard")
    assert pairs.endswith(r"--model=m/export $'the first text\tthe second'")


CLASSES = {
    "positive_class": "fraud",
    "by_class": {
        "fraud": {"precision": 0.5, "recall": 1.0, "f1": 0.6667, "support": 1},
        "not_ok": {"precision": 1.0, "recall": 0.6667, "f1": 0.8, "support": 1234},
    },
    "confusion": {"fraud": {"fraud": 1}, "not_ok": {"not_ok": 1230, "fraud": 4}},
}


def test_the_classes_are_shown_with_what_the_metrics_are_of():
    of, title, *table = run_summary.format_classes(CLASSES, "test")
    assert of.startswith("precision, recall, F1, ROC AUC and average precision are those of the class 'fraud';")
    assert title == "test by class"
    assert "\n".join(table).splitlines() == [
        "        precision  recall      f1  support",
        "fraud      0.5000  1.0000  0.6667        1",
        "not_ok     1.0000  0.6667  0.8000    1,234",
        "test by class (rows) and predicted class (columns)",
        "        fraud  not_ok",
        "fraud       1       0",
        "not_ok      4   1,230",
    ]


def test_of_many_classes_those_of_lowest_f1_are_shown():
    scores = {f"class {n}": {"precision": 1.0, "recall": 1.0, "f1": n / 77, "support": 8} for n in range(77)}
    classes = {"positive_class": None, "by_class": dict(reversed(scores.items())), "confusion": {}}
    of, title, table = run_summary.format_classes(classes, "test")
    assert "are means over the classes" in of
    assert title == "test by class, the 10 of 77 classes with the lowest F1"
    assert [row.split("  ")[0] for row in table.splitlines()[1:]] == [f"class {n}" for n in range(10)]


def test_a_long_class_name_is_shortened():
    name = "a very long name of a class that fills the line"
    scores = {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 8}
    classes = {"positive_class": None, "by_class": {name: scores, "b": scores}, "confusion": {name: {name: 8}, "b": {}}}
    lines = "\n".join(run_summary.format_classes(classes, "test")).splitlines()
    assert [line for line in lines if line.startswith("a very long name of a...")] == lines[3:4] + lines[7:8]
    assert max(map(len, lines[1:])) < 80


def test_class_names_are_told_apart_and_in_one_line():
    names = ["complaint about the bill of May", "complaint about the bill of June", "two\nlines"]
    scores = {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 8}
    classes = {"positive_class": None, "by_class": dict.fromkeys(names, scores)}
    classes["confusion"] = {name: {name: 8} for name in names}
    lines = "\n".join(run_summary.format_classes(classes, "test")).splitlines()
    firsts = [line.partition("  ")[0] for line in lines]
    assert firsts[3:6] == firsts[8:] == [*names[:2], "two lines"]


def test_numbers_have_no_classes_and_a_scale():
    assert run_summary.format_classes({}, "test") == []
    metrics = {"examples": 8, "loss": 0.5, "pearson": 0.75, "mean_squared_error": 12.5}
    result = {"steps": 9, "seconds": 1, "best_step": 9, "best_metric": "mean_squared_error", "test_classes": {}}
    result |= {"validation": metrics, "test": metrics, "label_scale": {"mean": 90.0, "deviation": 5.0}, "notes": ["N."]}
    summary = run_summary.format_summary(result, "m", "m/export", "m/tensorboard")
    assert "best at step 9 by validation mean squared error" in summary
    assert "the loss is that of (label - 90) / 5;" in summary
    assert "\nnote: N.\n" in summary
    below = run_summary.format_summary(
        result | {"label_scale": {"mean": -90.0, "deviation": 5.0}}, "m", "m/export", "m/t"
    )
    assert "the loss is that of (label + 90) / 5;" in below


def test_an_evaluation_has_the_classes_of_its_first_row():
    rows = [("encoder", {"accuracy": 0.5}), ("baseline", {"accuracy": 0.25})]
    first, *others = run_summary.format_evaluation(rows, CLASSES).split("\n")
    assert first.split() == ["accuracy"]
    assert "encoder by class" in others
    assert run_summary.format_evaluation(rows, {}) == run_summary.format_table(rows)


def test_several_labels_have_a_table_and_no_confusion():
    scores = {"precision": 0.5, "recall": 1.0, "f1": 0.6667, "average_precision": 0.75, "support": 4}
    without = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    of, title, *table = run_summary.format_classes({"by_class": {"price": scores, "rain": without}}, "test")
    assert of.startswith("macro F1 is the mean over all labels, average precision that over the labels that occur;")
    assert title == "test by label"
    assert "\n".join(table).splitlines() == [
        "       precision  recall      f1  average precision  support",
        "price     0.5000  1.0000  0.6667             0.7500        4",
        "rain      0.0000  0.0000  0.0000                           0",
    ]


def test_the_summary_of_a_run_that_stopped_early_says_so():
    metrics = {"examples": 8, "loss": 0.5, "accuracy": 0.75}
    result = {"steps": 240, "planned_steps": 1200, "stopped_early": True, "seconds": 75, "best_step": 200}
    result |= {"validation": metrics, "test": metrics}
    summary = run_summary.format_summary(result, "m", "m/export", "m/tensorboard")
    assert "finished: 240 steps of 1,200 planned in 1 min 15 s; best at step 200" in summary
