"""The command for AI Platform, held against the description of its API that google-api-python-client still ships."""

import functools
import json
from importlib import resources

import pytest
from test_job_spec import PRESETS, order

from trainer.cloud import ai_platform, job_spec
from trainer.errors import UsageError

# gcloud's flags and the fields of the API that they are, as gcloud's reference and the API's describe them.
FIELDS = {
    "module-name": "pythonModule",
    "job-dir": "jobDir",
    "runtime-version": "runtimeVersion",
    "python-version": "pythonVersion",
    "scale-tier": "scaleTier",
    "master-machine-type": "masterType",
    "worker-machine-type": "workerType",
    "worker-count": "workerCount",
    "region": "region",
    "service-account": "serviceAccount",
    "use-chief-in-tf-config": "useChiefInTfConfig",
}
OF_GCLOUD = {"package-path", "project", "labels"}  # which package to upload, whose job, its labels: of no such field


@functools.cache
def schemas() -> dict:
    documents = resources.files("googleapiclient.discovery_cache") / "documents"
    return json.loads((documents / "ml.v1.json").read_text(encoding="utf-8"))["schemas"]


def fits(value, schema: dict) -> None:
    """Raises AssertionError unless the value is one that the API describes."""
    if "$ref" in schema:
        properties = schemas()[schema["$ref"]]["properties"]
        assert set(value) <= set(properties)
        for key, inner in value.items():
            fits(inner, properties[key])
        return
    kinds = {"string": str, "array": list, "boolean": bool, "object": dict, "integer": int}
    assert isinstance(value, kinds[schema["type"]])
    if "enum" in schema:
        assert value in schema["enum"]
    for item in value if schema["type"] == "array" else []:
        fits(item, schema["items"])


def training_input(command: list[str]) -> dict:
    """What gcloud would send for the command."""
    at = command.index("--")
    found: dict = {"args": command[at + 1 :]}
    for flag in command[6:at]:
        name, value = flag.removeprefix("--").split("=", 1)
        if name in FIELDS:
            found[FIELDS[name]] = {"scale-tier": value.upper(), "use-chief-in-tf-config": value == "true"}.get(
                name, value
            )
        elif name.endswith("-accelerator"):
            parts = dict(part.split("=") for part in value.split(","))
            accelerator = {"count": parts["count"], "type": parts["type"].upper().replace("-", "_")}
            found[f"{name.split('-')[0]}Config"] = {"acceleratorConfig": accelerator}
        else:
            assert name in OF_GCLOUD
    return found


def command(**given) -> list[str]:
    made = order(target="ai_platform", **given)
    return ai_platform.command(
        name=made.name,
        host=made.host,
        replicas=made.replicas,
        flags=job_spec.task_flags(made.config, made.strategy),
        job_dir=made.base_output_directory,
        project=made.project,
        region=made.region,
        labels=made.labels,
    )


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("machine", ai_platform.SHORT)
def test_every_preset_is_a_job_as_the_service_described_it(preset, machine):
    made = command(config=preset, machine=machine)
    sent = training_input(made)
    fits(sent, {"$ref": "GoogleCloudMlV1__TrainingInput"})
    assert made[:6] == ["gcloud", "ai-platform", "jobs", "submit", "training", "run_1"]
    assert sent["jobDir"] == "gs://b/runs/run_1"
    assert sent["pythonModule"] == "trainer.task"
    assert (sent.get("workerCount"), sent.get("useChiefInTfConfig")) == (
        ("1", True) if machine == "workers" else (None, None)
    )
    assert not [flag for flag in sent["args"] if flag.startswith(("--job-dir", "--model_dir"))]  # the service adds it


def test_an_unknown_field_would_be_noticed():
    with pytest.raises(AssertionError):
        fits({"masterTyp": "n1-standard-8"}, {"$ref": "GoogleCloudMlV1__TrainingInput"})
    with pytest.raises(AssertionError):
        fits({"scaleTier": "HUGE"}, {"$ref": "GoogleCloudMlV1__TrainingInput"})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (dict(name="run-1"), "--name must be letters, digits and underscores on AI Platform"),
        (
            dict(machine="g2-standard-8"),
            "on AI Platform. Received: g2-standard-8, which has NVIDIA_L4. Take --machine=n1",
        ),
        (dict(machine="ct5lp-hightpu-4t"), "--machine must be one with GPUs, or without, on AI Platform"),
        (dict(machine="n4-standard-8"), "--machine must be an n1, n2, e2, c2 or a2 machine"),
    ],
)
def test_what_that_service_did_not_have_is_refused(given, words):
    with pytest.raises(UsageError, match=words):
        command(**given)
