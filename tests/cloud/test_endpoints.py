"""What puts an export behind an endpoint: its requests, and services that speak the service's own messages."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
import yaml
from fakes import gcs, grpc_services, model_server
from fakes.grpc_services import Method, Refusal
from google.cloud.aiplatform_v1 import types
from google.longrunning import operations_pb2
from google.protobuf import json_format, struct_pb2
from helpers import ROOT, excerpt, labeled_blocks, outcome, python, score_texts

from trainer.cloud import endpoints
from trainer.cloud.machine_types import Machine
from trainer.errors import UsageError
from trainer.export import predict

OPTIONS = {"project": "project", "region": "europe-west4", "name": "mine", "model": "gs://bucket/run/model"}
GPU_MACHINE = Machine("n1-standard-4", "NVIDIA_TESLA_T4", 1)
BLOCKS = labeled_blocks("serving")


@pytest.fixture(scope="module")
def signature(finished_run):
    return predict.load_export(str(finished_run / "export"))[1]


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
    for line in BLOCKS["serve"][1].splitlines():
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


def test_a_folder_without_an_export_is_not_copied(tmp_path):
    with pytest.raises(UsageError, match=r"--model.*no saved_model\.pb"):
        endpoints.copy_for_serving(str(tmp_path))


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
    texts = ["this is such an amazing movie!", "The movie was terrible..."]

    def answer(request: types.PredictRequest) -> types.PredictResponse:
        rows = [json_format.MessageToDict(row) for row in request._pb.instances]
        reply = types.PredictResponse(deployed_model_id="1", model=MODEL)
        for row in model_server.rest(signature, {"instances": rows})["predictions"]:
            reply._pb.predictions.append(json_format.ParseDict(row, struct_pb2.Value()))
        return reply

    code = (
        BLOCKS["vertex-client"][1]
        + """
import json, sys
client = aiplatform_v1.PredictionServiceClient(client_options={"api_endpoint": sys.argv[1]})
print(json.dumps(predict(client, sys.argv[2], json.loads(sys.argv[3]))))
"""
    )
    ask = {f"{PACKAGE}.PredictionService/Predict": Method(types.PredictRequest, [answer])}
    with grpc_services.serving(simulator, [HOST], ask) as server:
        status, out, error = outcome(code, HOST, ENDPOINT, json.dumps(texts), env=simulator.environment())
        assert server.requests("Predict")[0].endpoint == ENDPOINT
    assert status == 0, excerpt(error)
    expected_scores = score_texts(signature, texts)
    assert np.array([row["scores"] for row in json.loads(out)]) == pytest.approx(expected_scores, abs=1e-6)
