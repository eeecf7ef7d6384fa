"""What puts an export behind an endpoint, and the requests and replies of docs/serving.md."""

import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
import requests
import tensorflow as tf
import tf_keras
import yaml
from fakes import gcs, grpc_services, model_server
from fakes.grpc_services import Method, Refusal
from google.cloud.aiplatform_v1 import types
from google.longrunning import operations_pb2
from google.protobuf import json_format, struct_pb2
from helpers import ROOT, excerpt, outcome, python
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import predict_pb2

from trainer.cloud import endpoints
from trainer.cloud.machine_types import Machine
from trainer.errors import UsageError
from trainer.export import predict, saved_model

BLOCKS = {
    label: (language, text)
    for language, label, text in re.findall(
        r"^```(\w+) ([\w-]+)\n(.*?)^```", (ROOT / "docs/serving.md").read_text(encoding="utf-8"), re.M | re.S
    )
}
TEXTS = ["this is such an amazing movie!", "The movie was terrible...", "", "ünïcode — 电影 " * 40]
OPTIONS = {"project": "project", "region": "europe-west4", "name": "mine", "model": "gs://bucket/run/model"}
GPU_MACHINE = Machine("n1-standard-4", "NVIDIA_TESLA_T4", 1)


@pytest.fixture(scope="module")
def loaded(finished_run):
    return predict.load_export(str(finished_run / "export"))


@pytest.fixture(scope="module")
def signature(loaded):
    return loaded[1]


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
    expected_scores = np.array(list(predict.score_texts(signature, [[text] for text in TEXTS])))
    assert outputs["scores"] == pytest.approx(expected_scores, abs=1e-6)
    assert outputs["labels"].tolist() == [[b"negative", b"positive"][place] for place in expected_scores.argmax(axis=1)]


@pytest.mark.parametrize(("request_label", "reply_label"), [("rows", "rows-reply"), ("columns", "columns-reply")])
def test_the_document_s_requests_have_replies_as_it_shows(signature, request_label, reply_label):
    reply = model_server.rest(signature, block(request_label))
    assert json_shape(reply) == json_shape(block(reply_label))
    body = block(request_label)
    texts = body["instances"] if "instances" in body else body["inputs"]["text"]
    rows = reply.get("predictions") or [{"scores": row} for row in reply["outputs"]["scores"]]
    expected_scores = list(predict.score_texts(signature, [[text] for text in texts]))
    assert np.array([row["scores"] for row in rows]) == pytest.approx(np.array(expected_scores), abs=1e-6)


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
    expected_scores = list(predict.score_texts(signature, [[text] for text in TEXTS[:2]]))
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


# --- The export ---------------------------------------------------------------------------------------


def test_an_export_has_the_operators_that_the_document_names(finished_run):
    saved = saved_model_pb2.SavedModel.FromString((finished_run / "export/saved_model.pb").read_bytes())
    graphs = [meta.graph_def for meta in saved.meta_graphs]
    bodies = [body for graph in graphs for body in (graph.node, *(f.node_def for f in graph.library.function))]
    operators = {node.op for body in bodies for node in body}
    page = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    listed = re.search(r"not TensorFlow's own: (.*?) of TensorFlow Text", page, re.S)[1]
    assert sorted(name for name in operators if not hasattr(tf.raw_ops, name)) == re.findall(r"`(\w+)`", listed)


def test_a_folder_without_an_export_is_not_copied(tmp_path):
    with pytest.raises(UsageError, match=r"--model.*no saved_model\.pb"):
        endpoints.copy_for_serving(str(tmp_path))


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
    expected_scores = np.array(list(predict.score_texts(signature, [[text] for text in TEXTS])))
    assert np.array(json.loads(done.stdout)) == pytest.approx(expected_scores, abs=1e-5)


# --- Vertex -------------------------------------------------------------------------------------------


def test_the_requests_are_the_service_s_messages():
    wanted = endpoints.build_requests(
        **OPTIONS, machine=GPU_MACHINE, replicas=1, max_replicas=3, service_account="me@x"
    )
    upload, endpoint, deploy = (endpoints.parse_request(request) for request in wanted)
    assert upload.model.artifact_uri == "gs://bucket/run/model-serving"
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


def test_the_document_s_commands_print_requests(offline):
    environment = {**offline, "PROJECT": "p", "REGION": "europe-west4", "BUCKET": "b", "ENDPOINT": "17"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    printed = []
    for line in block("serve").splitlines():
        command = f"{line.partition('#')[0].replace(' --dry_run', '')} --dry_run"
        done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=environment, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
        printed.append([endpoints.parse_request(request) for request in yaml.safe_load_all(done.stdout)])
    assert [len(messages) for messages in printed] == [3, 3, 2]
    assert printed[0] == printed[1]
    assert printed[2][1].endpoint == "projects/p/locations/europe-west4/endpoints/17"
    assert printed[2][1].deployed_model.dedicated_resources.max_replica_count == 4


def test_a_field_that_the_service_does_not_know_fails():
    request = endpoints.build_requests(**OPTIONS, machine=GPU_MACHINE)[1]
    request["request"]["endpoint"]["displayNam"] = "n"
    with pytest.raises(UsageError, match="displayNam"):
        endpoints.parse_request(request)


def test_an_existing_endpoint_is_not_created():
    for endpoint in ("123", "projects/project/locations/europe-west4/endpoints/123"):
        wanted = endpoints.build_requests(**OPTIONS, machine=GPU_MACHINE, endpoint=endpoint)
        assert [request["method"] for request in wanted] == ["UploadModel", "DeployModel"]
        assert endpoints.parse_request(wanted[1]).endpoint == "projects/project/locations/europe-west4/endpoints/123"


def test_every_mistake_is_reported_at_once():
    wrong = {"project": None, "region": "", "name": "n", "model": "/run/model", "replicas": 2, "max_replicas": 1}
    with pytest.raises(UsageError) as caught:
        endpoints.build_requests(**wrong, machine=Machine("ct5lp-hightpu-1t", tpu_topology="1x1"))
    flags = [problem.setting for problem in caught.value.problems]
    assert flags == ["--project", "--region", "--replicas", "--model", "--machine", "--max_replicas"]


def test_a_gpu_takes_the_image_for_gpus():
    assert endpoints.default_image("google.com:p", "r", gpu=True).endswith(
        "/google.com/p/hubtune/tensorflow-serving:2.20.0-gpu"
    )
    upload = endpoints.build_requests(**OPTIONS, machine=GPU_MACHINE)[0]
    assert upload["request"]["model"]["containerSpec"]["imageUri"].endswith("tensorflow-serving:2.20.0-gpu")


def test_the_export_is_copied_to_a_version_s_folder(finished_run, tmp_path):
    model = shutil.copytree(finished_run / "export", tmp_path / "run/model")
    (tmp_path / "run/model-serving/1").mkdir(parents=True)
    (tmp_path / "run/model-serving/1/old").touch()
    endpoints.copy_for_serving(str(model))
    assert endpoints.serving_folder(f"{model}/") == str(tmp_path / "run/model-serving/1")
    copied, original = (
        {path.relative_to(folder).as_posix() for path in folder.glob("**/*")}
        for folder in (tmp_path / "run/model-serving/1", model)
    )
    assert copied == original


HOST = "europe-west4-aiplatform.googleapis.com"
PACKAGE = "/google.cloud.aiplatform.v1"
PARENT = "projects/p/locations/europe-west4"
MODEL, ENDPOINT = f"{PARENT}/models/7", f"{PARENT}/endpoints/17"


def finished_operation(reply) -> operations_pb2.Operation:
    """An operation of the service that has ended with this reply."""
    operation = operations_pb2.Operation(name=f"{PARENT}/operations/1", done=True)
    operation.response.Pack(type(reply).pb(reply))
    return operation


RUNNING = operations_pb2.Operation(name=f"{PARENT}/operations/2")


def methods(deploy=None, status=()) -> dict[str, Method]:
    return {
        f"{PACKAGE}.ModelService/UploadModel": Method(
            types.UploadModelRequest, [finished_operation(types.UploadModelResponse(model=MODEL))]
        ),
        f"{PACKAGE}.EndpointService/CreateEndpoint": Method(
            types.CreateEndpointRequest, [finished_operation(types.Endpoint(name=ENDPOINT))]
        ),
        f"{PACKAGE}.EndpointService/DeployModel": Method(types.DeployModelRequest, [deploy or RUNNING]),
        "/google.longrunning.Operations/GetOperation": Method(operations_pb2.GetOperationRequest, list(status)),
    }


def objects(simulator, prefix: str) -> set[str]:
    with gcs.DIRECT.open(
        f"http://127.0.0.1:{simulator.port}/storage/v1/b/bucket/o?prefix={prefix}", timeout=10
    ) as reply:
        return {item["name"].removeprefix(prefix) for item in json.loads(reply.read()).get("items", [])}


SERVE = ["scripts/submit.py", "--serve", "--model=gs://bucket/run/model", "--project=p", "--region=europe-west4"]


def test_what_is_deployed_is_what_is_printed(simulator, finished_run, offline, write_object):
    """The command, against a bucket and local services that speak the service's own messages."""
    for path in (finished_run / "export").glob("**/*"):
        if path.is_file():
            write_object(f"run/model/{path.relative_to(finished_run / 'export')}", path.read_bytes())
    printed = python(*SERVE, "--dry_run", env=offline)
    assert printed.returncode == 0, printed.stderr
    expected = [endpoints.parse_request(request) for request in yaml.safe_load_all(printed.stdout)]
    expected[2].endpoint, expected[2].deployed_model.model = ENDPOINT, MODEL  # which the service names
    answers = methods(status=[RUNNING, finished_operation(types.DeployModelResponse())])
    with grpc_services.serving(simulator, [HOST], answers) as server:
        run = python(*SERVE, env=simulator.environment())
        received = [server.requests(name)[0] for name in ("UploadModel", "CreateEndpoint", "DeployModel")]
    assert run.returncode == 0, run.stderr
    assert received == expected
    assert objects(simulator, "run/model-serving/1/") == objects(simulator, "run/model/")
    assert expected[0].model.artifact_uri == "gs://bucket/run/model-serving"
    endpoint, command = run.stdout.splitlines()
    assert endpoint == ENDPOINT
    assert command == endpoints.predict_command(ENDPOINT, "europe-west4")
    subprocess.run(["bash", "-n"], input=command, text=True, check=True)
    assert f"https://{HOST}/v1/{ENDPOINT}:predict" in command
    body = json.loads(re.search(r"-d '(.*)'$", command)[1])
    assert set(body) == {"instances"}


DEPLOY = """
import sys
from trainer.cloud import endpoints
from trainer.cloud.machine_types import Machine
endpoints.OPERATION_TIMEOUTS_S = dict.fromkeys(endpoints.OPERATION_TIMEOUTS_S, 3.0)
flags = {"project": "p", "region": "europe-west4", "name": "n", "model": "gs://bucket/run/model"}
wanted = endpoints.build_requests(**flags, machine=Machine("n1-standard-4"))
for _ in range(int(sys.argv[1])):
    try:
        print(endpoints.send_requests(wanted, "europe-west4"))
    except ValueError as error:
        print(error)
"""


def test_a_refusal_and_an_endless_deployment_are_one_message_each(simulator):
    answers = methods(status=[RUNNING])
    no_quota = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "no such machines")
    answers[f"{PACKAGE}.EndpointService/DeployModel"].answers = [no_quota, RUNNING]
    with grpc_services.serving(simulator, [HOST], answers):
        code, out, error = outcome(DEPLOY, 2, env=simulator.environment())
    assert code == 0, excerpt(error)
    refused, late = out.splitlines()
    for words in ("DeployModel", MODEL, ENDPOINT, "RESOURCE_EXHAUSTED, no such machines", "--machine"):
        assert words in refused
    for words in ("DeployModel", "3 s", RUNNING.name):
        assert words in late


def test_the_document_s_client_gets_the_export_s_scores(simulator, signature):
    def answer(request: types.PredictRequest) -> types.PredictResponse:
        rows = [json_format.MessageToDict(row) for row in request._pb.instances]
        reply = types.PredictResponse(deployed_model_id="1", model=MODEL)
        for row in model_server.rest(signature, {"instances": rows})["predictions"]:
            reply._pb.predictions.append(json_format.ParseDict(row, struct_pb2.Value()))
        return reply

    code = (
        block("vertex-client")
        + """
import json, sys
client = aiplatform_v1.PredictionServiceClient(client_options={"api_endpoint": sys.argv[1]})
print(json.dumps(predict(client, sys.argv[2], json.loads(sys.argv[3]))))
"""
    )
    ask = {f"{PACKAGE}.PredictionService/Predict": Method(types.PredictRequest, [answer])}
    with grpc_services.serving(simulator, [HOST], ask) as server:
        status, out, error = outcome(code, HOST, ENDPOINT, json.dumps(TEXTS[:2]), env=simulator.environment())
        assert server.requests("Predict")[0].endpoint == ENDPOINT
    assert status == 0, excerpt(error)
    expected_scores = np.array(list(predict.score_texts(signature, [[text] for text in TEXTS[:2]])))
    assert np.array([row["scores"] for row in json.loads(out)]) == pytest.approx(expected_scores, abs=1e-6)
