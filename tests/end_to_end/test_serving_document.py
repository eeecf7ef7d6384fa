"""What docs/serving.md says of an export, as it stands there: what loads it, requests and replies, clients.

What loads it runs in processes of its own. TensorFlow Serving is a stand-in that has the export's own signature.
"""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import requests
import tensorflow as tf
import tf_keras
from fakes import model_server
from helpers import ROOT, excerpt, labeled_blocks, python, score_texts
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import predict_pb2

from trainer.cloud import endpoints
from trainer.export import predict, saved_model

BLOCKS = labeled_blocks("serving")
TEXTS = ["this is such an amazing movie!", "The movie was terrible...", "", "ünïcode — 电影 " * 40]


@pytest.fixture(scope="module")
def folder(finished_run, tmp_path_factory):
    """A folder with the export where the document has it."""
    folder = tmp_path_factory.mktemp("document")
    (folder / "runs/mine").mkdir(parents=True)
    (folder / "runs/mine/export").symlink_to(finished_run / "export")
    return folder


@pytest.fixture(scope="module")
def signature(finished_run):
    return predict.load_export(str(finished_run / "export"))[1]


@pytest.fixture(scope="module")
def scores(signature):
    return score_texts(signature, TEXTS[:1])[0]


@pytest.fixture(scope="module")
def pair_export(job, tmp_path_factory):
    """An export that gives a number for two texts."""
    number = tf_keras.layers.Dense(1)(job.eval_model.output)
    scorer = tf_keras.Model(job.eval_model.inputs, number)
    module, function = saved_model.build_serving_module(
        scorer, job.tokenizer, texts=2, labels=(), seq_length=24, truncation="head"
    )
    folder = str(tmp_path_factory.mktemp("pairs") / "export")
    tf.saved_model.save(module, folder, signatures={"serving_default": function})
    return predict.load_export(folder)


def block(label: str):
    """What a block of the document holds: JSON as the value that it is."""
    language, text = BLOCKS[label]
    return json.loads(text) if language == "json" else text


def json_shape(value):
    """The names and types in a JSON value, without its numbers and texts."""
    if isinstance(value, dict):
        return {name: json_shape(part) for name, part in value.items()}
    return [json_shape(part) for part in value] if isinstance(value, list) else type(value)


def run(label, folder, text=None, **variables):
    """Run a block of the document without this project's package and settings."""
    language, code = BLOCKS[label]
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "TF_USE_LEGACY_KERAS")}
    environment = {**inherited, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **variables}
    command = [sys.executable, "-c"] if language == "python" else ["bash", "-ec"]
    return subprocess.run(
        [*command, text or code], cwd=folder, env=environment, text=True, capture_output=True, timeout=900
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


# --- Requests and replies -----------------------------------------------------------------------------


def test_the_tensor_of_a_predict_request_gives_the_export_s_scores(signature):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "model"
    request.model_spec.signature_name = "serving_default"
    request.inputs["text"].CopyFrom(tf.make_tensor_proto(TEXTS, tf.string))
    received = predict_pb2.PredictRequest.FromString(request.SerializeToString())
    sent = model_server.predict(signature, received).SerializeToString()
    outputs = {
        name: tf.make_ndarray(proto) for name, proto in predict_pb2.PredictResponse.FromString(sent).outputs.items()
    }
    assert {name: value.shape for name, value in outputs.items()} == {
        "scores": (4, 2),
        "logits": (4, 2),
        "labels": (4,),
    }
    expected_scores = score_texts(signature, TEXTS)
    assert outputs["scores"] == pytest.approx(expected_scores, abs=1e-6)
    assert outputs["labels"].tolist() == [[b"negative", b"positive"][place] for place in expected_scores.argmax(axis=1)]


@pytest.mark.parametrize(("request_label", "reply_label"), [("rows", "rows-reply"), ("columns", "columns-reply")])
def test_the_document_s_requests_have_replies_as_it_shows(signature, request_label, reply_label):
    reply = model_server.rest(signature, block(request_label))
    assert json_shape(reply) == json_shape(block(reply_label))
    body = block(request_label)
    texts = body["instances"] if "instances" in body else body["inputs"]["text"]
    rows = reply.get("predictions") or [{"scores": row} for row in reply["outputs"]["scores"]]
    expected_scores = score_texts(signature, texts)
    assert np.array([row["scores"] for row in rows]) == pytest.approx(expected_scores, abs=1e-6)


def test_a_row_may_name_its_input(signature):
    named, plain = (model_server.rest(signature, body) for body in (block("named-rows"), block("rows")))
    assert named["predictions"][0]["scores"] == pytest.approx(plain["predictions"][0]["scores"])


def test_pairs_come_as_objects_and_a_number_has_no_label(pair_export):
    _, signature = pair_export
    by_row, by_column = (model_server.rest(signature, block(label)) for label in ("pairs", "pair-columns"))
    assert json_shape(by_row["predictions"][0]) == json_shape(block("regression-reply")["predictions"][0])
    assert by_row["predictions"][0]["scores"] == by_column["outputs"]["scores"][0]
    swapped = {"instances": [{"text": "Someone makes music.", "text_pair": "A man plays a guitar."}]}
    assert model_server.rest(signature, swapped) != by_row


def test_the_document_s_clients_run(signature, tmp_path, capsys):
    with model_server.running(signature) as (rest, grpc):
        for name in ("rest-client", "grpc-client"):
            code = (
                block(name)
                .replace("localhost:8501", f"127.0.0.1:{rest}")
                .replace("localhost:8500", f"127.0.0.1:{grpc}")
            )
            assert code.count("127.0.0.1") == 1
            (tmp_path / "client.py").write_text(code)
            runpy.run_path(str(tmp_path / "client.py"))
        refused = [
            requests.post(f"http://127.0.0.1:{rest}/v1/models/{model}:predict", json=body, timeout=10)
            for model, body in (
                ("model", {"instances": ["a"], "inputs": ["a"]}),
                ("model", {"inputs": {"txt": ["a"]}}),
                ("model", {"instances": ["a", {"text_pair": "a"}]}),
                ("other", {"instances": ["a"]}),
            )
        ]
    assert [reply.status_code for reply in refused] == [400, 400, 400, 404]
    assert all("error" in reply.json() for reply in refused)
    rest_lines, grpc_lines = np.array_split(capsys.readouterr().out.splitlines(), 2)
    assert len(rest_lines) == 2
    assert rest_lines.tolist() == grpc_lines.tolist()
    expected_scores = score_texts(signature, TEXTS[:2])
    assert [f"{max(scores):.4f}" in line for scores, line in zip(expected_scores, rest_lines, strict=True)] == [
        True,
        True,
    ]


def test_the_document_s_shell_commands_parse_and_make_the_folder(finished_run, tmp_path):
    for _, text in (BLOCKS[label] for label in BLOCKS if BLOCKS[label][0] == "sh"):
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    shutil.copytree(finished_run / "export", tmp_path / "runs/quickstart/export")
    subprocess.run(["bash", "-e"], input=block("folder"), text=True, check=True, cwd=tmp_path)
    assert (tmp_path / "serving/1/saved_model.pb").is_file()
    source = endpoints.SOURCE_IMAGE.removeprefix("docker.io/")
    assert source in block("docker")
    copied = endpoints.default_image("$PROJECT", "$REGION")
    assert [line.split()[1:] for line in block("image").splitlines()] == [
        ["pull", source],
        ["tag", source, copied],
        ["push", copied],
    ]


def test_an_export_has_the_operators_that_the_document_names(finished_run):
    saved = saved_model_pb2.SavedModel.FromString((finished_run / "export/saved_model.pb").read_bytes())
    graphs = [meta.graph_def for meta in saved.meta_graphs]
    bodies = [body for graph in graphs for body in (graph.node, *(f.node_def for f in graph.library.function))]
    operators = {node.op for body in bodies for node in body}
    page = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    listed = re.search(r"not TensorFlow's own: (.*?) of TensorFlow Text", page, re.S)[1]
    assert sorted(name for name in operators if not hasattr(tf.raw_ops, name)) == re.findall(r"`(\w+)`", listed)


@pytest.mark.chaos
def test_tensorflow_text_2_12_gives_the_same_scores(finished_run, signature, tmp_path):
    """TensorFlow 2.12.1 and its Text, from the registry: what TensorFlow Serving's images are known to hold."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "old"], check=True)
    python = tmp_path / "old/bin/python"
    packages = ["tensorflow-cpu==2.12.1", "tensorflow-text==2.12.1"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True, capture_output=True)
    code = """
import json, sys
import tensorflow as tf, tensorflow_text
signature = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
print(json.dumps(signature(text=tf.constant(json.load(sys.stdin)))["scores"].numpy().tolist()))
"""
    done = subprocess.run(
        [python, "-c", code, finished_run / "export"], input=json.dumps(TEXTS), text=True, capture_output=True
    )
    assert done.returncode == 0, excerpt(done.stderr)
    expected_scores = score_texts(signature, TEXTS)
    assert np.array(json.loads(done.stdout)) == pytest.approx(expected_scores, abs=1e-5)
