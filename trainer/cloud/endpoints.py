"""What puts an export behind a Vertex AI endpoint: requests as plain data, in the JSON mapping of their protos.

TensorFlow Serving answers there, in a container of its own, since Vertex AI's prebuilt ones end with TensorFlow 2.15
(https://cloud.google.com/vertex-ai/docs/predictions/pre-built-containers). docs/serving.md has requests and replies.
"""

import logging
import os
import re
from typing import Any

from trainer.cloud import google_api, job_request, job_spec
from trainer.cloud.machine_types import Machine, find_machine_problems
from trainer.errors import Problem, UsageError, UserError
from trainer.runtime.tensorflow_variables import ONEDNN_VARIABLES
from trainer.storage import fs

_LOG = logging.getLogger(__name__)

# The release of the exports' own TensorFlow (https://github.com/tensorflow/serving/issues/4129 has its date). Vertex AI
# takes images from Artifact Registry alone (ModelContainerSpec.imageUri), so that this one has to be copied there.
SOURCE_IMAGE = "docker.io/tensorflow/serving:2.20.0"
SERVED_MODEL_NAME = "model"  # TensorFlow Serving's routes hold it.
SERVING_PORT = 8080
# How long a container may take to fetch and load its model. It does not listen before that, and without a startup probe
# Vertex AI would start it again after 4 probes, 10 s apart
# (https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements).
STARTUP_TIMEOUT_S = 900
STARTUP_PROBE_INTERVAL_S = 10
# How long an operation of the service may take. A deployment starts machines.
OPERATION_TIMEOUTS_S = {"UploadModel": 900.0, "CreateEndpoint": 300.0, "DeployModel": 3600.0}

Request = dict[str, Any]  # {"method": "UploadModel", "request": the JSON mapping of UploadModelRequest}


def serving_folder(model: str) -> str:
    """Where `copy_for_serving` puts the export: in a version's folder next to it, such as model-serving/1.

    TensorFlow Serving loads no SavedModel that is not in a folder whose name is a number
    (https://www.tensorflow.org/tfx/serving/serving_config).
    """
    return fs.join(f"{model.rstrip('/')}-serving", "1")


def copy_for_serving(model: str) -> None:
    """Copy the export to its serving folder. Raises UsageError if there is no export."""
    if not fs.exists(fs.join(model, "saved_model.pb")):
        received = f"{model}, which has no saved_model.pb"
        raise UsageError(Problem("--model", "be an exported SavedModel, such as MODEL_DIR/export", received))
    fs.remove(serving_folder(model))
    fs.copy_folder(model, serving_folder(model))


def build_requests(
    *,
    project: str | None,
    region: str | None,
    name: str,
    model: str,
    machine: Machine,
    replicas: int = 1,
    max_replicas: int | None = None,
    image: str | None = None,
    endpoint: str = "",
    service_account: str = "",
) -> list[Request]:
    """The requests that deploy the export `model` (gs://...), in order. MODEL_ID and ENDPOINT_ID are still unknown.

    `replicas`, `max_replicas`: the least and the most machines. `endpoint`: the id or the resource name of an existing
    one; a new one is created if it is empty. `service_account`: the container's; Vertex AI's own if it is empty. Raises
    UsageError with everything that is wrong.
    """
    max_replicas = replicas if max_replicas is None else max_replicas
    problems = [
        *job_request.find_location_problems(project, region),
        *_find_deployment_problems(model, machine, replicas, max_replicas),
    ]
    if problems:
        raise UsageError(*problems)
    parent = f"projects/{project}/locations/{region}"
    image = image or default_image(str(project), str(region), gpu=bool(machine.accelerator_count))
    upload = {
        "parent": parent,
        "model": {
            "displayName": name,
            "artifactUri": os.path.dirname(serving_folder(model)),
            "containerSpec": _build_container_spec(image),
        },
    }
    deployed_model = {
        "model": f"{parent}/models/MODEL_ID",
        "displayName": name,
        "dedicatedResources": {
            "machineSpec": job_spec.build_machine_spec(machine),
            "minReplicaCount": replicas,
            "maxReplicaCount": max_replicas,
        },
        **({"serviceAccount": service_account} if service_account else {}),
    }
    deploy = {
        "endpoint": endpoint if "/" in endpoint else f"{parent}/endpoints/{endpoint or 'ENDPOINT_ID'}",
        "deployedModel": deployed_model,
        # "0" is the model that is being deployed. Others on the endpoint stay, without traffic.
        "trafficSplit": {"0": 100},
    }
    create = {"parent": parent, "endpoint": {"displayName": name}}
    return [
        {"method": "UploadModel", "request": upload},
        *([] if endpoint else [{"method": "CreateEndpoint", "request": create}]),
        {"method": "DeployModel", "request": deploy},
    ]


def _find_deployment_problems(model: str, machine: Machine, replicas: int, max_replicas: int) -> list[Problem]:
    problems = [*find_machine_problems(machine, replicas)]
    if not re.match("gs://[^/]+/[^/]", model):
        problems.append(Problem("--model", "be gs://BUCKET/NAME, where Vertex AI can read it", model or "none"))
    if machine.has_tpu:
        problems.append(Problem("--machine", "have CPUs or GPUs, as TensorFlow Serving's image", machine.machine_type))
    if max_replicas < replicas:
        problems.append(Problem("--max_replicas", f"be at least --replicas, {replicas}", str(max_replicas)))
    return problems


def _build_container_spec(image: str) -> dict[str, Any]:
    """A ModelContainerSpec that runs TensorFlow Serving."""
    route = f"/v1/models/{SERVED_MODEL_NAME}"
    return {
        "imageUri": image,
        "command": ["/usr/bin/tensorflow_model_server"],
        "args": [
            f"--rest_api_port={SERVING_PORT}",
            f"--model_name={SERVED_MODEL_NAME}",
            "--model_base_path=$(AIP_STORAGE_URI)",  # Vertex AI's copy of the artifacts, gs://...
            "--file_system_poll_wait_seconds=0",  # Read the versions once, not every second, which is billed.
        ],
        "env": [{"name": name, "value": value} for name, value in ONEDNN_VARIABLES.items()],
        "ports": [{"containerPort": SERVING_PORT}],
        "predictRoute": f"{route}:predict",
        "healthRoute": route,
        "startupProbe": {
            "httpGet": {"path": route, "port": SERVING_PORT},
            "periodSeconds": STARTUP_PROBE_INTERVAL_S,
            "timeoutSeconds": 5,
            "failureThreshold": STARTUP_TIMEOUT_S // STARTUP_PROBE_INTERVAL_S,
        },
    }


def default_image(project: str, region: str, *, gpu: bool = False) -> str:
    """Where docs/serving.md has SOURCE_IMAGE copied to."""
    tag = SOURCE_IMAGE.rpartition(":")[2] + ("-gpu" if gpu else "")
    return f"{job_request.image_repository(project, region)}/tensorflow-serving:{tag}"


def parse_request(request: Request) -> Any:
    """The request as google-cloud-aiplatform's own message. Raises UsageError for a field or value unknown to it."""
    from google.cloud import aiplatform_v1
    from google.protobuf import json_format

    kind = getattr(aiplatform_v1, f"{request['method']}Request")
    try:
        return kind(json_format.ParseDict(request["request"], kind.pb(kind())))
    except json_format.ParseError as error:
        raise UsageError(Problem("The flags", f"make a {request['method']} of Vertex AI", str(error))) from None


def send_requests(requests: list[Request], region: str) -> str:
    """Send the requests in order, each when the one before is done. Returns the endpoint's resource name.

    Raises UserError for what the service refuses, and, with the operation's name, for what is not done within
    OPERATION_TIMEOUTS_S. What was created before that stays.
    """
    from concurrent.futures import TimeoutError as OperationTimeoutError

    from google.cloud.aiplatform_v1.services import endpoint_service, model_service

    models = google_api.connect(model_service.ModelServiceClient, region)
    endpoints = google_api.connect(endpoint_service.EndpointServiceClient, region)
    steps = {  # The call, and the name of what it created or changed.
        "UploadModel": (models.upload_model, lambda message, reply: reply.model),
        "CreateEndpoint": (endpoints.create_endpoint, lambda message, reply: reply.name),
        "DeployModel": (endpoints.deploy_model, lambda message, reply: message.endpoint),
    }
    created: dict[str, str] = {}
    for request in requests:
        method, message = request["method"], parse_request(request)
        if method == "DeployModel":
            message.deployed_model.model = created["UploadModel"]
            message.endpoint = created.get("CreateEndpoint", message.endpoint)
        call, read_name = steps[method]
        timeout_s = OPERATION_TIMEOUTS_S[method]
        _LOG.info("%s: at most %.0f s", method, timeout_s)
        with google_api.translate_errors(f"{method} (created so far: {', '.join(created.values()) or 'nothing'})"):
            operation = call(request=message, timeout=google_api.REQUEST_TIMEOUT_S, retry=None)
            try:
                created[method] = read_name(message, operation.result(timeout=timeout_s))
            except OperationTimeoutError:
                received = f"no result; it continues as {operation.operation.name}"
                advice = "See https://console.cloud.google.com/vertex-ai/online-prediction/endpoints."
                raise UserError(Problem(method, f"be done within {timeout_s:.0f} s", received, advice)) from None
    return created["DeployModel"]


def predict_command(endpoint: str, region: str) -> str:
    """A shell command that gets the endpoint's scores of two texts."""
    body = '{"instances": ["a wonderful film", "dull and dreadful"]}'
    return (
        f"curl -X POST https://{region}-aiplatform.googleapis.com/v1/{endpoint}:predict "
        '-H "Authorization: Bearer $(gcloud auth print-access-token)" -H "Content-Type: application/json" '
        f"-d '{body}'"
    )
