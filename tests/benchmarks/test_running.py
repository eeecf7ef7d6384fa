import json
import sys

from benchmark_samples import SETTINGS

from trainer.benchmarks import results, running
from trainer.benchmarks.rows import FOLDER, Contender
from trainer.runtime.signals import StopRequest


def contender(name: str, code: str, *arguments: str, **options) -> Contender:
    return Contender(name, (sys.executable, "-c", code, *arguments), printed=True, **options)


def named(name: str, path, size=None) -> Contender:
    """A process that appends its name to a file, and prints how many there are."""
    code = "import sys; f = open(sys.argv[1], 'a+'); f.write(sys.argv[2]); f.seek(0); print({'count': 1})"
    return contender(name, code.replace("{'count': 1}", "'{\"count\": 1}'"), str(path), name[0], size=size)


def open_results(tmp_path) -> results.Results:
    return results.open_results(str(tmp_path / "results.json"), SETTINGS, results.describe_machine())


def measure(tmp_path, contenders, repetitions):
    kept, problems = open_results(tmp_path), []
    running.run_in_turn("step", contenders, repetitions, kept, StopRequest(), problems)
    return kept, problems


def test_contenders_are_measured_in_turn(tmp_path):
    order = tmp_path / "order"
    kept, problems = measure(tmp_path, [named("ours", order), named("peer", order)], 3)
    assert order.read_text() == "opopop"
    assert not problems
    assert [(s.contender, s.repetition) for s in kept.samples[:4]] == [
        *(("ours", 0), ("peer", 0)),
        *(("ours", 1), ("peer", 1)),
    ]
    assert all(s.figures["count"] == 1 and s.figures["seconds"] > 0 < s.figures["memory_mb"] for s in kept.samples)


def test_what_the_results_have_is_not_measured_again(tmp_path):
    order = tmp_path / "order"
    measure(tmp_path, [named("ours", order), named("peer", order)], 1)
    kept, _ = measure(tmp_path, [named("ours", order), named("peer", order)], 2)
    assert order.read_text() == "opop"
    assert len(kept.samples) == 4
    assert len(json.loads((tmp_path / "results.json").read_text())["samples"]) == 4


def test_sizes_of_a_contender_are_measured_each(tmp_path):
    order = tmp_path / "order"
    kept, _ = measure(tmp_path, [named("ours", order, size) for size in (1, 2)], 1)
    assert [sample.size for sample in kept.samples] == [1, 2]


def test_a_contender_that_fails_stops_no_other(tmp_path):
    order = tmp_path / "order"
    failing = contender("peer", "raise SystemExit('broken')")
    kept, problems = measure(tmp_path, [failing, named("ours", order)], 2)
    assert order.read_text() == "oo"
    assert len(problems) == 1
    assert "broken" in problems[0].received
    assert len(kept.samples) == 2


def test_a_command_gets_an_empty_folder_variables_and_a_log(tmp_path):
    code = "import json, os, sys; print(json.dumps({'files': len(os.listdir(sys.argv[1])), 'x': int(os.environ['X'])}))"
    figures = running.measure_contender("step", contender("ours", code, FOLDER, variables={"X": "7"}), StopRequest())
    assert figures["files"] == 1  # Its log.
    assert figures["x"] == 7


def test_the_rate_of_a_run_is_that_of_all_its_train_lines(tmp_path):
    lines = [
        {"step": 1, "split": "train", "examples": 100, "examples_per_second": 50.0},
        {"step": 1, "split": "validation", "examples": 10},
        {"step": 2, "split": "train", "examples": 100, "examples_per_second": 100.0},
    ]
    path = tmp_path / "run/metrics.jsonl"
    path.parent.mkdir()
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert abs(running.read_training_rate(str(path))["examples_per_second"] - 200 / 3) < 1e-9
