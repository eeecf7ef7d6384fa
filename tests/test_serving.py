"""What puts an export behind an endpoint, and what docs/serving.md says that it is asked and answers."""

import json
import re
import runpy
import shutil
import subprocess
import sys

import model_server
import numpy as np
import pytest
import requests
import tensorflow as tf
import tf_keras
from conftest import ROOT
from google.protobuf import json_format
from tensorflow_serving.apis import predict_pb2

from trainer import build, export, predict, serving
from trainer.environment import UsageError

BLOCKS = {
    label: (language, text)
    for language, label, text in re.findall(
        r"^```(\w+) ([\w-]+)\n(.*?)^```", (ROOT / "docs/serving.md").read_text(encoding="utf-8"), re.M | re.S
    )
}
TEXTS = ["this is such an amazing movie!", "The movie was terrible...", "", "ünïcode — 电影 " * 40]
WANTED = {"project": "project", "region": "europe-west4", "name": "mine", "model": "gs://bucket/run/model"}
MACHINE = {"machineType": "n1-standard-4", "acceleratorType": "NVIDIA_TESLA_T4", "acceleratorCount": 1}


@pytest.fixture(scope="module")
def loaded(finished_run):
    return predict.load(str(finished_run / "export"))


@pytest.fixture(scope="module")
def signature(loaded):
    return loaded[1]


@pytest.fixture(scope="module")
def of_pairs(job, tmp_path_factory):
    """An export that gives a number for two texts."""
    number = tf_keras.layers.Dense(1)(job.scorer.output)
    scorer = tf_keras.Model(job.scorer.inputs, number)
    module, function = export.build(
        scorer, build.tokenizer(job.config), texts=2, labels=(), seq_length=24, truncation="head"
    )
    folder = str(tmp_path_factory.mktemp("pairs") / "export")
    tf.saved_model.save(module, folder, signatures={"serving_default": function})
    return predict.load(folder)


def block(label: str):
    """What a block of the document holds: JSON as the value that it is."""
    language, text = BLOCKS[label]
    return json.loads(text) if language == "json" else text


def form(value):
    """A JSON value without its numbers and words: what kind it is, all the way down."""
    if isinstance(value, dict):
        return {name: form(part) for name, part in value.items()}
    return [form(part) for part in value] if isinstance(value, list) else type(value)


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
    own = np.array(list(predict.score(signature, [[text] for text in TEXTS])))
    assert outputs["scores"] == pytest.approx(own, abs=1e-6)
    assert outputs["labels"].tolist() == [[b"negative", b"positive"][place] for place in own.argmax(axis=1)]


@pytest.mark.parametrize(("asked", "answered"), [("rows", "rows-reply"), ("columns", "columns-reply")])
def test_the_document_s_requests_are_answered_in_the_form_that_it_shows(signature, asked, answered):
    reply = model_server.rest(signature, block(asked))
    assert form(reply) == form(block(answered))
    body = block(asked)
    texts = body["instances"] if "instances" in body else body["inputs"]["text"]
    rows = reply.get("predictions") or [{"scores": row} for row in reply["outputs"]["scores"]]
    own = list(predict.score(signature, [[text] for text in texts]))
    assert np.array([row["scores"] for row in rows]) == pytest.approx(np.array(own), abs=1e-6)


def test_a_row_may_name_its_input(signature):
    named, plain = (model_server.rest(signature, body) for body in (block("named-rows"), block("rows")))
    assert named["predictions"][0]["scores"] == pytest.approx(plain["predictions"][0]["scores"])


def test_pairs_come_as_objects_and_a_number_has_no_label(of_pairs):
    _, signature = of_pairs
    by_row, by_column = (model_server.rest(signature, block(label)) for label in ("pairs", "pair-columns"))
    assert form(by_row["predictions"][0]) == form(block("regression-reply")["predictions"][0])
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
    own = list(predict.score(signature, [[text] for text in TEXTS[:2]]))
    assert [f"{max(scores):.4f}" in line for scores, line in zip(own, rest_lines, strict=True)] == [True, True]


def test_the_document_s_shell_lines_parse_and_the_folder_is_as_the_server_wants_it(finished_run, tmp_path):
    for _, text in (BLOCKS[label] for label in BLOCKS if BLOCKS[label][0] == "sh"):
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    shutil.copytree(finished_run / "export", tmp_path / "runs/quickstart/export")
    subprocess.run(["bash", "-e"], input=block("folder"), text=True, check=True, cwd=tmp_path)
    assert (tmp_path / "serving/1/saved_model.pb").is_file()
    source = serving.SOURCE_IMAGE.removeprefix("docker.io/")
    assert source in block("docker")
    copied = serving.default_image("$PROJECT", "$REGION")
    assert [line.split()[1:] for line in block("image").splitlines()] == [
        ["pull", source],
        ["tag", source, copied],
        ["push", copied],
    ]


# --- The export ---------------------------------------------------------------------------------------


def test_an_export_s_operators_are_those_that_the_document_names(finished_run):
    code = """
import sys
from tensorflow.python.framework import op_def_registry
from trainer import serving
print(*sorted(name for name in serving.operators(sys.argv[1]) if op_def_registry.get(name) is None))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(finished_run / "export")], cwd=ROOT, text=True, capture_output=True, check=True
    )
    page = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    listed = re.search(r"not TensorFlow's own: (.*?) of TensorFlow Text", page, re.S)[1]
    assert done.stdout.split() == re.findall(r"`(\w+)`", listed)


def test_an_export_that_tensorflow_serving_could_not_load_is_refused(tiny, tmp_path):
    with pytest.raises(UsageError, match=r"Received: .*preprocess, with TFText>RoundRobinTrim.*--mode=export"):
        serving.check(str(tiny / "preprocess"))
    with pytest.raises(UsageError, match=r"--model must name an exported SavedModel.*no saved_model\.pb"):
        serving.check(str(tmp_path))


@pytest.mark.chaos
def test_the_operators_of_tensorflow_text_2_12_give_the_same_scores(finished_run, signature, tmp_path):
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
    assert done.returncode == 0, done.stderr[-2000:]
    own = np.array(list(predict.score(signature, [[text] for text in TEXTS])))
    assert np.array(json.loads(done.stdout)) == pytest.approx(own, abs=1e-5)


# --- Vertex -------------------------------------------------------------------------------------------


def test_the_requests_are_ones_that_the_service_knows():
    wanted = serving.requests(**WANTED, machine=MACHINE, replicas=(1, 3), service_account="me@x")
    upload, endpoint, deploy = (serving.message(request) for request in wanted)
    assert upload.model.artifact_uri == "gs://bucket/run/serving"
    assert upload.model.container_spec.predict_route == "/v1/models/model:predict"
    assert upload.model.container_spec.ports[0].container_port == 8080
    assert "--rest_api_port=8080" in upload.model.container_spec.args
    assert endpoint.parent == upload.parent == "projects/project/locations/europe-west4"
    machine = deploy.deployed_model.dedicated_resources
    assert (machine.machine_spec.machine_type, machine.machine_spec.accelerator_type.name) == (
        "n1-standard-4",
        "NVIDIA_TESLA_T4",
    )
    assert (machine.min_replica_count, machine.max_replica_count) == (1, 3)
    assert dict(deploy.traffic_split) == {"0": 100}
    assert deploy.deployed_model.service_account == "me@x"


def test_a_field_that_the_service_does_not_know_fails():
    request = serving.create_endpoint(parent="projects/p/locations/r", name="n")
    request["request"]["endpoint"]["displayNam"] = "n"
    with pytest.raises(json_format.ParseError, match="displayNam"):
        serving.message(request)


def test_an_endpoint_that_is_there_is_not_made():
    for endpoint in ("123", "projects/project/locations/europe-west4/endpoints/123"):
        wanted = serving.requests(**WANTED, machine=MACHINE, endpoint=endpoint)
        assert [request["method"] for request in wanted] == ["UploadModel", "DeployModel"]
        assert serving.message(wanted[1]).endpoint == "projects/project/locations/europe-west4/endpoints/123"


@pytest.mark.parametrize("replicas", [(0, 1), (2, 1)])
def test_wrong_numbers_of_replicas_are_refused(replicas):
    with pytest.raises(UsageError, match=r"1 <= MIN <= MAX\. Received: \d,1"):
        serving.requests(**WANTED, machine=MACHINE, replicas=replicas)


def test_a_model_that_vertex_cannot_read_is_refused():
    with pytest.raises(UsageError, match=r"--model must be in a bucket.*Received: /run/model"):
        serving.requests(**{**WANTED, "model": "/run/model"}, machine=MACHINE)


def test_the_export_is_put_where_tensorflow_serving_looks(finished_run, tmp_path):
    model = shutil.copytree(finished_run / "export", tmp_path / "run/model")
    (tmp_path / "run/serving/1").mkdir(parents=True)
    (tmp_path / "run/serving/1/old").touch()
    serving.publish(str(model))
    assert serving.versioned(f"{model}/") == str(tmp_path / "run/serving/1")
    there, here = (
        {path.relative_to(folder).as_posix() for path in folder.glob("**/*")}
        for folder in (tmp_path / "run/serving/1", model)
    )
    assert there == here
