"""The functions of trainer.api, in this process, and in one of their own where what is left behind matters."""

import json
import re
import subprocess
import sys

import pytest
from helpers import ROOT, keep_first_lines, outcome, write_reviews

from trainer import api

PAGE = (ROOT / "docs/api.md").read_text(encoding="utf-8")
QUIET = {"logging.progress": False}
FILMS = ["a great film", "a dull one"]


def settings_of(flags: list[str]) -> dict[str, str]:
    """The settings of flags, without the data set."""
    pairs = [flag.removeprefix("--").removeprefix("set=").split("=", 1) for flag in flags]
    return {key: value for key, value in pairs if key != "data_dir"}


def lines_of(model_dir) -> list[dict]:
    """metrics.jsonl, without times."""
    text = (model_dir / "metrics.jsonl").read_text(encoding="utf-8")
    timed = ("seconds", "examples_per_second", "input_wait", "padding")
    return [{k: v for k, v in json.loads(line).items() if k not in timed} for line in text.splitlines()]


def test_importing_it_loads_no_tensorflow():
    code = "import sys; from trainer import api; print([name in sys.modules for name in ('tensorflow', 'numpy')])"
    assert outcome(code)[1] == "[False, False]\n"


# Trains in a process that has other things to do: it imports TensorFlow first, trains another job on other devices,
# then the job in a thread, and then once more, interrupted.
SEVERAL = """
import tensorflow as tf
import json, logging, os, signal, sys, threading, time
import matplotlib
from trainer import api

data_dir, other, folder, settings = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
matplotlib.use("svg")

def state():
    loggers = [logging.getLogger(name) for name in (None, "trainer")]
    return (
        [(each.handlers[:], each.level, each.propagate) for each in loggers],
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        (matplotlib.get_backend(), tf.keras.mixed_precision.global_policy().name),
    )

def train(name, **given):
    return api.train(data_dir, os.path.join(folder, name), settings=settings, **given)

before = state()
changed = {"precision": "bfloat16", "optimizer.name": "lamb", "seed": 5}
try:
    others = {"strategy": "mirrored", "virtual_devices": 2, "stop_at_step": 2}
    api.train(data_dir, os.path.join(folder, "other"), settings=settings | changed | {"encoder": other}, **others)
except api.Stopped:
    print("stopped", flush=True)

results = []
thread = threading.Thread(target=lambda: results.append(train("thread")))
thread.start()
thread.join()
print(json.dumps(results[0].values), flush=True)

def interrupt():
    metrics = os.path.join(folder, "interrupted/metrics.jsonl")
    while not os.path.exists(metrics) or not os.path.getsize(metrics):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt).start()
for given in ({}, {"stop_at_step": 80}):
    try:
        train("interrupted", **given)
    except api.Stopped as stopped:
        print(str(stopped).partition(",")[0], flush=True)
assert state() == before, (state(), before)
"""


def test_a_process_trains_several_times_as_the_command_does_each(flags, finished_run, make_encoder, prepared, tmp_path):
    settings = json.dumps(settings_of(flags) | QUIET)
    command = [sys.executable, "-c", SEVERAL, prepared, make_encoder("tiny_bert_v2"), tmp_path, settings]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=900)
    keep_first_lines(done.returncode, done.stderr)
    assert done.returncode == 0, done.stderr
    stopped, values, interrupted, later = done.stdout.splitlines()
    assert stopped == "stopped"
    expected = lines_of(finished_run)
    assert lines_of(tmp_path / "thread") == expected
    result = json.loads((finished_run / "result.json").read_text())
    assert {key: json.loads(values)[key] for key in ("validation", "test")} == {
        key: result[key] for key in ("validation", "test")
    }
    step = int(interrupted.removeprefix("stopped by SIGINT at step ").split()[0])
    assert 20 <= step < 80
    assert later.startswith("stopped by --stop_at_step at step 80 of 100")
    assert lines_of(tmp_path / "interrupted") == [line for line in expected if line["step"] <= 80]


@pytest.fixture
def notebook(tiny, tmp_path, monkeypatch):
    """A folder with the table and the encoder that the page's examples name, and in which they run."""
    (tmp_path / "encoders").mkdir()
    (tmp_path / "encoders/minilm").symlink_to(tiny)
    table = write_reviews(tmp_path / "reviews.csv", 120).read_text(encoding="utf-8")
    (tmp_path / "reviews.csv").write_text(table.replace("text,label", "review,stars", 1), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_examples_of_the_page_run(notebook, capsys):
    names: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        exec(block, names)
    data, result, validation = names["data"], names["result"], names["validation"]
    assert data.examples["train"] + data.examples["validation"] + data.examples["test"] == 120
    kept = json.loads((notebook / "runs/first/result.json").read_text())
    assert result.values == kept
    assert (result.test, result.validation, result.steps) == (kept["test"], kept["validation"], 6)
    assert (result.export, result.report) == ("runs/first/export", "runs/first/report.html")
    assert validation.metrics == result.validation
    assert validation.baseline["examples"] == validation.metrics["examples"]
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[:2]] == [each.label for each in names["classifier"].predict(FILMS)]
    assert printed[2] == "['data.batch_size', 'training.epoch']"
    assert str(data).startswith("data/reviews: csv, classification")
    assert str(result).startswith("\nfinished: 6 steps in ")
    assert str(validation).startswith("validation of data/reviews\n")
    # A run that is finished is not trained again.
    settings = {"training.epochs": 2, "optimizer.learning_rate": 3e-5}
    assert api.train("data/reviews", "runs/first", settings=settings | QUIET) == result
    assert api.predict(result.export, FILMS) == names["classifier"].predict(FILMS)


@pytest.mark.parametrize(
    ("call", "settings"),
    [
        (
            lambda: api.train("s3://a", "run", stop_at_step=0, settings={"seed": -1}),
            ["--stop_at_step", "--data_dir", "seed"],
        ),
        (lambda: api.evaluate("no run", "dev", settings={"seed": 1}), ["--split", "--seed"]),
        (lambda: api.load("s3://export"), ["--model"]),
    ],
)
def test_every_wrong_argument_is_reported_at_once(call, settings):
    with pytest.raises(api.UsageError) as caught:
        call()
    assert [problem.setting for problem in caught.value.problems] == settings
