"""The command for AI Platform, compared with the description of its API that google-api-python-client still has."""

import functools
import json
from importlib import resources

import pytest
from helpers import ROOT

from trainer.cloud import ai_platform

PRESETS = sorted(
    f"configs/{path.name}"
    for path in (ROOT / "configs").glob("*.yaml")
    if not path.name.startswith(("sweep_", "tune_"))
)

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
OTHER_FLAGS = {"package-path", "project", "labels"}  # They are no fields of TrainingInput.


@functools.cache
def schemas() -> dict:
    documents = resources.files("googleapiclient.discovery_cache") / "documents"
    return json.loads((documents / "ml.v1.json").read_text(encoding="utf-8"))["schemas"]


def assert_described(value, schema: dict) -> None:
    """Raises AssertionError unless the value is one that the API describes."""
    if "$ref" in schema:
        properties = schemas()[schema["$ref"]]["properties"]
        assert set(value) <= set(properties)
        for key, inner in value.items():
            assert_described(inner, properties[key])
        return
    kinds = {"string": str, "array": list, "boolean": bool, "object": dict, "integer": int}
    assert isinstance(value, kinds[schema["type"]])
    if "enum" in schema:
        assert value in schema["enum"]
    for item in value if schema["type"] == "array" else []:
        assert_described(item, schema["items"])


def training_input(command: list[str]) -> dict:
    """What gcloud would send for the command."""
    at = command.index("--")
    fields: dict = {"args": command[at + 1 :]}
    for flag in command[6:at]:
        name, value = flag.removeprefix("--").split("=", 1)
        if name in FIELDS:
            fields[FIELDS[name]] = {"scale-tier": value.upper(), "use-chief-in-tf-config": value == "true"}.get(
                name, value
            )
        elif name.endswith("-accelerator"):
            parts = dict(part.split("=") for part in value.split(","))
            accelerator = {"count": parts["count"], "type": parts["type"].upper().replace("-", "_")}
            fields[f"{name.split('-')[0]}Config"] = {"acceleratorConfig": accelerator}
        else:
            assert name in OTHER_FLAGS
    return fields


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("machine", ai_platform.SHORT_NAMES)
def test_every_preset_is_a_job_as_the_service_described_it(build_request, preset, machine):
    request = build_request(ai_platform.SHORT_NAMES, config=preset, machine=machine)
    assert ai_platform.find_problems(request) == []
    command = ai_platform.build_command(request)
    sent = training_input(command)
    assert_described(sent, {"$ref": "GoogleCloudMlV1__TrainingInput"})
    assert command[:6] == ["gcloud", "ai-platform", "jobs", "submit", "training", "run_1"]
    assert sent["jobDir"] == "gs://b/runs/run_1"
    assert sent["pythonModule"] == "trainer.task"
    workers = ("1", True) if machine == "workers" else (None, None)
    assert (sent.get("workerCount"), sent.get("useChiefInTfConfig")) == workers
    assert not [flag for flag in sent["args"] if flag.startswith(("--job-dir", "--model_dir"))]  # The service adds it.


def test_an_unknown_field_or_value_fails_the_comparison():
    with pytest.raises(AssertionError):
        assert_described({"masterTyp": "n1-standard-8"}, {"$ref": "GoogleCloudMlV1__TrainingInput"})
    with pytest.raises(AssertionError):
        assert_described({"scaleTier": "HUGE"}, {"$ref": "GoogleCloudMlV1__TrainingInput"})


@pytest.mark.parametrize(
    ("given", "flag"),
    [
        (dict(name="run-1"), "--name"),
        (dict(machine="g2-standard-8"), "--machine"),
        (dict(machine="ct5lp-hightpu-4t"), "--machine"),
        (dict(machine="n4-standard-8"), "--machine"),
    ],
)
def test_what_that_service_did_not_have_is_refused(build_request, given, flag):
    (problem,) = ai_platform.find_problems(build_request(ai_platform.SHORT_NAMES, **given))
    assert problem.setting == flag
