"""What docs/serving.md says to load an export with, run as it stands there, each in a process of its own."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, excerpt, python

from trainer.export import predict

TEXT = "this is such an amazing movie!"
BLOCKS = {
    label: (language, text)
    for language, label, text in re.findall(
        r"^```(\w+) ([\w-]+)\n(.*?)^```", (ROOT / "docs/serving.md").read_text(encoding="utf-8"), re.M | re.S
    )
}


@pytest.fixture(scope="module")
def folder(finished_run, tmp_path_factory):
    """A folder with the export where the document has it."""
    folder = tmp_path_factory.mktemp("document")
    (folder / "runs/mine").mkdir(parents=True)
    (folder / "runs/mine/export").symlink_to(finished_run / "export")
    return folder


@pytest.fixture(scope="module")
def scores(finished_run):
    _, signature = predict.load_export(str(finished_run / "export"))
    return next(predict.score_texts(signature, [[TEXT]]))


def run(label, folder, text=None, **variables):
    """Run a block of the document without this project's package and settings."""
    language, code = BLOCKS[label]
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "TF_USE_LEGACY_KERAS")}
    environment = {**inherited, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **variables}
    command = [sys.executable, "-c"] if language == "python" else ["bash", "-ec"]
    return subprocess.run(
        [*command, text or code], cwd=folder, env=environment, text=True, capture_output=True, timeout=300
    )


@pytest.mark.parametrize(
    ("label", "variables"),
    [("plain", {}), ("keras3", {}), ("hub", {"TF_USE_LEGACY_KERAS": "1"}), ("saved-model-cli", {})],
)
def test_a_documented_way_to_load_an_export_computes_its_scores(folder, scores, label, variables):
    done = run(label, folder, **variables)
    assert done.returncode == 0, excerpt(done.stderr)
    printed = [float(number) for number in re.findall(r"\d\.\d+(?:e-\d+)?", done.stdout)]
    assert any(printed[place : place + 2] == pytest.approx(list(scores), abs=1e-5) for place in range(len(printed)))


@pytest.mark.parametrize("format_name", ["litert", "onnx"])
def test_a_classifier_of_token_ids_runs_as_documented(finished_run, folder, scores, format_name):
    output = folder / "classifiers/mine"
    shutil.rmtree(output, ignore_errors=True)
    arguments = [f"--model_dir={finished_run}", f"--output={output}", f"--format={format_name}"]
    python("scripts/export_classifier.py", *arguments, check=True)
    code = BLOCKS["litert"][1]
    if format_name == "onnx":
        start, end = code.index("classify ="), code.index("scores =")
        code = code[:start] + BLOCKS["onnx"][1] + code[end:]
    done = run("litert", folder, code)
    assert done.returncode == 0, excerpt(done.stderr)
    printed = [float(number) for number in re.findall(r"\d\.\d+(?:e-\d+)?", done.stdout)]
    assert printed == pytest.approx(list(scores), abs=1e-4)


def test_the_temperature_is_read_as_documented(folder):
    done = run("decision", folder)
    assert (done.returncode, done.stdout.split()) == (0, ["1.0"]), excerpt(done.stderr)


def test_an_export_does_not_load_without_tensorflow_text(folder):
    code = "".join(line for line in BLOCKS["plain"][1].splitlines(True) if "tensorflow_text" not in line)
    done = run("plain", folder, code)
    assert done.returncode != 0
    page = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    assert re.search(r"reports `(Op type not registered '\w+')`", page)[1] in done.stderr
