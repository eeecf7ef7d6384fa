"""What puts an export behind a Vertex AI endpoint: requests as plain data, in the JSON mapping of their protos.

TensorFlow Serving answers there, in a container of its own, since Vertex's prebuilt ones end with TensorFlow 2.15
(https://cloud.google.com/vertex-ai/docs/predictions/pre-built-containers). docs/serving.md has what it is asked and
what it answers.
"""

import os
import re
import sys
from collections.abc import Mapping
from typing import Any

from trainer.cloud import vertex_client
from trainer.errors import UsageError
from trainer.storage import fs

# The release of the exports' own TensorFlow (https://github.com/tensorflow/serving/issues/4129 has its date). Vertex
# takes an image from Artifact Registry alone (ModelContainerSpec.imageUri), so this one has to be copied there.
SOURCE_IMAGE = "docker.io/tensorflow/serving:2.20.0"
NAME = "model"  # what TensorFlow Serving is told to call it, and so what its routes do
PORT = 8080
# Operators of TensorFlow Text 2.20 that 2.12.1 lacks, by a look at both. TensorFlow Serving held 2.12.1 for years, and
# which of its images has a newer one is not said (https://github.com/tensorflow/serving/pull/4057).
UNSERVED = frozenset({"TFText>RoundRobinTrim", "TFText>RoundRobinGenerateMasks", "TFText>Utf8Binarize"})
# Seconds that a container may take to fetch and load its model; it is not listening before that, and without a startup
# probe Vertex would start it again after 4 looks, 10 s apart
# (https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements).
LOADING = 900
# Seconds for an operation of the service to be done. A deployment starts machines.
WITHIN = {"UploadModel": 900.0, "CreateEndpoint": 300.0, "DeployModel": 3600.0}

Request = dict[str, Any]  # {"method": "UploadModel", "request": the JSON mapping of UploadModelRequest}


def operators(folder: str) -> set[str]:
    """The names of all operators in a SavedModel's graph and functions. Raises ValueError if there is no SavedModel."""
    from tensorflow.core.protobuf import saved_model_pb2

    path = fs.join(folder, "saved_model.pb")
    if not fs.exists(path):
        raise UsageError(
            f"--model must name an exported SavedModel, such as MODEL_DIR/export. Received: {folder}, which has no "
            "saved_model.pb."
        )
    graphs = [meta.graph_def for meta in saved_model_pb2.SavedModel.FromString(fs.read_bytes(path)).meta_graphs]
    bodies = [body for graph in graphs for body in (graph.node, *(f.node_def for f in graph.library.function))]
    return {node.op for body in bodies for node in body}


def check(folder: str) -> None:
    """Raises UsageError for an export that TensorFlow Serving could not load."""
    lacking = sorted(operators(folder) & UNSERVED)
    if lacking:
        raise UsageError(
            f"--model must hold operators that TensorFlow Serving has. Received: {folder}, with {', '.join(lacking)}: "
            "an export of an older version. Write it again: python -m trainer.task --mode=export --model_dir=..."
        )


def versioned(model: str) -> str:
    """Where `publish` puts the export for TensorFlow Serving: beside it, a version: model-serving/1.

    TensorFlow Serving loads no SavedModel that is not in a folder whose name is a number
    (https://www.tensorflow.org/tfx/serving/serving_config).
    """
    return fs.join(f"{model.rstrip('/')}-serving", "1")


def publish(model: str) -> None:
    """Copy the export to where TensorFlow Serving looks for it."""
    fs.remove(versioned(model))
    fs.copy_folder(model, versioned(model))


# --- The requests ---------------------------------------------------------------------------------


def upload_model(*, parent: str, name: str, model: str, image: str) -> Request:
    """A Model of the export `model` (gs://...), served by `image`. `parent`: projects/PROJECT/locations/REGION."""
    health = f"/v1/models/{NAME}"
    container = {
        "imageUri": image,
        "command": ["/usr/bin/tensorflow_model_server"],
        "args": [
            f"--rest_api_port={PORT}",
            f"--model_name={NAME}",
            "--model_base_path=$(AIP_STORAGE_URI)",  # where Vertex has copied the artifacts to, gs://...
            "--file_system_poll_wait_seconds=0",  # look for versions once, not every second, which is billed
        ],
        "ports": [{"containerPort": PORT}],
        "predictRoute": f"{health}:predict",
        "healthRoute": health,
        "startupProbe": {
            "httpGet": {"path": health, "port": PORT},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": LOADING // 10,
        },
    }
    artifacts = os.path.dirname(versioned(model))
    content = {"displayName": name, "artifactUri": artifacts, "containerSpec": container}
    return {"method": "UploadModel", "request": {"parent": parent, "model": content}}


def create_endpoint(*, parent: str, name: str) -> Request:
    return {"method": "CreateEndpoint", "request": {"parent": parent, "endpoint": {"displayName": name}}}


def deploy_model(
    *,
    endpoint: str,
    model: str,
    name: str,
    machine: Mapping[str, Any],
    replicas: tuple[int, int] = (1, 1),
    service_account: str = "",
) -> Request:
    """Deploy `model` on at least and at most so many machines, and send it all of the endpoint's traffic.

    `machine`: a MachineSpec, {"machineType", "acceleratorType", "acceleratorCount"}. Other models that are deployed
    there stay, without traffic. `service_account`: what the container runs as; Vertex's own if it is empty.
    """
    least, most = replicas
    deployed: dict[str, Any] = {
        "model": model,
        "displayName": name,
        "dedicatedResources": {"machineSpec": dict(machine), "minReplicaCount": least, "maxReplicaCount": most},
    }
    if service_account:
        deployed["serviceAccount"] = service_account
    # "0" is the model that is being deployed.
    return {
        "method": "DeployModel",
        "request": {"endpoint": endpoint, "deployedModel": deployed, "trafficSplit": {"0": 100}},
    }


def requests(
    *,
    project: str | None,
    region: str | None,
    name: str,
    model: str,
    machine: Mapping[str, Any],
    image: str | None = None,
    endpoint: str = "",
    replicas: tuple[int, int] = (1, 1),
    service_account: str = "",
) -> list[Request]:
    """All that deploys the export `model`, in order; what the service will name is MODEL_ID and ENDPOINT_ID.

    `endpoint`: the id of one that is there, or its whole name; a new one if it is empty. Raises UsageError with
    everything that is wrong with any of it.
    """
    found = [
        f"--{flag} must be given. Received: none."
        for flag, value in (("project", project), ("region", region))
        if not value
    ]
    if not re.match("gs://[^/]+/[^/]", model):
        found.append(f"--model must be in a bucket, gs://..., where Vertex can read it. Received: {model or 'none'}.")
    if "tpuTopology" in machine or str(machine["machineType"]).startswith(("ct", "cloud-tpu")):
        found.append(
            "--machine must be one that TensorFlow Serving's image runs on, with CPUs or GPUs. Received: "
            f"{machine['machineType']}."
        )
    least, most = replicas
    if not 1 <= least <= most:
        found.append(f"--replicas must be at least 1, and --max_replicas no less. Received: {least} and {most}.")
    if found:
        raise UsageError("\n".join(found))
    parent = f"projects/{project}/locations/{region}"
    target = endpoint if "/" in endpoint else f"{parent}/endpoints/{endpoint or 'ENDPOINT_ID'}"
    image = image or default_image(str(project), str(region), gpu="acceleratorType" in machine)
    return [
        upload_model(parent=parent, name=name, model=model, image=image),
        *([] if endpoint else [create_endpoint(parent=parent, name=name)]),
        deploy_model(
            endpoint=target,
            model=f"{parent}/models/MODEL_ID",
            name=name,
            machine=machine,
            replicas=replicas,
            service_account=service_account,
        ),
    ]


def default_image(project: str, region: str, *, gpu: bool = False) -> str:
    """Where docs/serving.md has SOURCE_IMAGE copied to."""
    tag = SOURCE_IMAGE.rpartition(":")[2] + ("-gpu" if gpu else "")
    return f"{region}-docker.pkg.dev/{project.replace(':', '/')}/hubtune/tensorflow-serving:{tag}"


# --- Submitting -----------------------------------------------------------------------------------


def message(request: Request) -> Any:
    """The request as google-cloud-aiplatform's own message. Raises UsageError for what that does not know."""
    with vertex_client.needed():
        from google.cloud import aiplatform_v1
        from google.protobuf import json_format

    kind = getattr(aiplatform_v1, f"{request['method']}Request")
    try:
        return kind(json_format.ParseDict(request["request"], kind.pb(kind())))
    except json_format.ParseError as error:
        raise UsageError(f"The flags must make a {request['method']} of Vertex AI. Received: {error}.") from None


def submit(wanted: list[Request], region: str) -> str:
    """Send the requests in order, each when the one before it is done; returns the endpoint's name.

    Says on standard error what it waits for. Raises vertex.Refused for what the service will not do; ValueError, naming
    the operation, for what is not done WITHIN its time. What was made before that stays.
    """
    from concurrent.futures import TimeoutError as Late

    with vertex_client.needed():
        from google.cloud.aiplatform_v1.services import endpoint_service, model_service
    options = {"api_endpoint": f"{region}-aiplatform.googleapis.com"}
    with vertex_client.said(f"a connection to {region}"):
        models = model_service.ModelServiceClient(client_options=options)
        endpoints = endpoint_service.EndpointServiceClient(client_options=options)
    steps = {  # the call, and what it names
        "UploadModel": (models.upload_model, lambda sent, reply: reply.model),
        "CreateEndpoint": (endpoints.create_endpoint, lambda sent, reply: reply.name),
        "DeployModel": (endpoints.deploy_model, lambda sent, reply: sent.endpoint),
    }
    made: dict[str, str] = {}
    for request in wanted:
        method, sent = request["method"], message(request)
        if method == "DeployModel":
            sent.deployed_model.model = made["UploadModel"]
            sent.endpoint = made.get("CreateEndpoint", sent.endpoint)
        call, named = steps[method]
        print(f"{method}: at most {WITHIN[method]:.0f} s", file=sys.stderr)
        with vertex_client.said(f"{method} (made so far: {', '.join(made.values()) or 'nothing'})"):
            operation = call(request=sent, timeout=vertex_client.WITHIN, retry=None)
            try:
                made[method] = named(sent, operation.result(timeout=WITHIN[method]))
            except Late:
                raise ValueError(
                    f"{method} must be done within {WITHIN[method]:.0f} s. Received: nothing yet; it goes on as "
                    f"{operation.operation.name}. Look at it there: "
                    "https://console.cloud.google.com/vertex-ai/online-prediction/endpoints"
                ) from None
    return made["DeployModel"]


def predict_command(endpoint: str, region: str) -> str:
    """A shell command that asks the endpoint for two texts' scores."""
    body = '{"instances": ["a wonderful film", "dull and dreadful"]}'
    return (
        f"curl -X POST https://{region}-aiplatform.googleapis.com/v1/{endpoint}:predict "
        '-H "Authorization: Bearer $(gcloud auth print-access-token)" -H "Content-Type: application/json" '
        f"-d '{body}'"
    )
