"""Buckets that cannot be used, in every flag of every command: named at once, before TensorFlow is imported.

The times are those of the complete process, which a user waits for.
"""

import json
import socket
import subprocess
import sys
import time

import pytest
from helpers import ROOT

from trainer.storage import preflight

# A command -> its flags with a path, and whether it writes there.
COMMANDS = {
    "scripts/prepare_data.py --task=csv": {
        **dict.fromkeys(("--source=", "--test_source=", "--validation_source=", "--encoder="), False),
        **dict.fromkeys(("--preprocess=", "--encoders.mirror="), False),
        "--output=": True,
    },
    "scripts/prepare_data.py": {"--inspect=": False},
    "scripts/import_encoder.py": {"--source=hf:": False, "--output=": True},
    "-m trainer.task": {"--config=": False, "--data_dir=": False, "--encoders.mirror=": False, "--model_dir=": True},
    "-m trainer.task --mode=evaluate": {"--model_dir=": False, "--predictions=": True},
    "-m trainer.task --mode=export": {"--model_dir=": True},
    "scripts/predict.py": {"--model=": False, "--input=": False, "--output=": True},
}
MAX_SECONDS = 15
READ = "storage.objects.get, storage.objects.list"
WRITE = "storage.objects.create, storage.objects.delete"


def command(simulator, *arguments, **changes):
    """(standard error, seconds) of a command that is rejected before it computes anything."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=simulator.environment(**changes),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert "Traceback" not in done.stderr
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    return done.stderr, time.monotonic() - started


@pytest.mark.parametrize("line", COMMANDS)
def test_every_missing_bucket_is_named_within_15_s(simulator, line):
    error, seconds = command(simulator, *line.split(), *(f"{flag}gs://missing/a" for flag in COMMANDS[line]))
    for flag in COMMANDS[line]:
        assert f"{flag.split('=')[0]} must be in a bucket that exists. Received: gs://missing/a " in error
    assert seconds < MAX_SECONDS


@pytest.mark.parametrize("line", COMMANDS)
def test_every_missing_permission_is_named_within_15_s(simulator, line):
    simulator.bucket("readonly", permissions=READ.split(", "))
    simulator.bucket("closed", permissions=[])
    paths = (f"{flag}gs://{'readonly' if writes else 'closed'}/a" for flag, writes in COMMANDS[line].items())
    error, seconds = command(simulator, *line.split(), *paths)
    for flag, writes in COMMANDS[line].items():
        required = f"{READ}, {WRITE}" if writes else READ
        name = flag.split("=")[0]
        if writes:
            assert f"{name} must allow {required} to the account" in error
            assert f"Received: gs://readonly/a (no {WRITE}). Grant the account that this runs as roles" in error
        else:
            assert f"{name} must allow listing. Received: gs://closed/a (403, The caller does not have " in error
    assert seconds < MAX_SECONDS


@pytest.mark.parametrize("line", COMMANDS)
def test_missing_credentials_are_named_within_15_s(simulator, tmp_path, line):
    simulator.bucket("bucket", anonymous=[])
    paths = (f"{flag}gs://bucket/a" for flag in COMMANDS[line])
    error, seconds = command(simulator, *line.split(), *paths, **without_credentials(tmp_path))
    for flag in COMMANDS[line]:
        assert (
            f"{flag.split('=')[0]} must be used with Google credentials that the service accepts. Received: " in error
        )
    assert error.count("gs://bucket/a (none). Run `gcloud auth") == len(COMMANDS[line])
    assert seconds < MAX_SECONDS


def without_credentials(folder) -> dict[str, str]:
    return {"GOOGLE_APPLICATION_CREDENTIALS": "", "CLOUDSDK_CONFIG": str(folder), "HOME": str(folder)}


def test_a_metadata_server_that_does_not_answer_is_given_up_within_15_s(simulator, tmp_path):
    simulator.bucket("bucket", anonymous=[])
    with socket.create_server(("127.0.0.1", 0)) as silent:  # It accepts connections and never answers.
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        error, seconds = command(
            simulator,
            "-m",
            "trainer.task",
            "--model_dir=gs://bucket/run",
            "--data_dir=gs://bucket/data",
            **without_credentials(tmp_path),
            NO_GCE_CHECK="",
            GCE_METADATA_IP=host,
            GCE_METADATA_HOST=host,
        )
    assert "gs://bucket/run (none). Run `gcloud auth" in error
    assert seconds < MAX_SECONDS


def test_a_missing_key_file_is_named(simulator):
    error, _ = command(simulator, "scripts/predict.py", "--model=gs://bucket/a", GOOGLE_APPLICATION_CREDENTIALS="/no")
    assert "--model must be used with Google credentials that the service accepts. Received: " in error
    assert "gs://bucket/a (File /no was not found)." in error


def test_problems_of_the_configuration_and_its_buckets_are_named_together(simulator):
    code = 'fs.write_text("gs://bucket/c.yaml", "encoder: gs://missing/encoder\\ndata_dir: gs://bucket/data\\n")'
    simulator.storage_python(code)
    flags = ["--config=gs://bucket/c.yaml", "--model_dir=gs://missing/run"]
    error, _ = command(simulator, "-m", "trainer.task", *flags)
    assert "--model_dir must be in a bucket that exists. Received: gs://missing/run " in error
    assert "--encoder must be in a bucket that exists. Received: gs://missing/encoder " in error
    assert "data_dir" not in error
    error, _ = command(simulator, "-m", "trainer.task", *flags, "--set", "data.batch_size=many")
    assert "--model_dir must be in a bucket that exists. Received: gs://missing/run " in error
    assert "data.batch_size" in error
    assert "many" in error


@pytest.mark.parametrize(
    ("fault", "setting"),
    [({"do": "hang", "seconds": 60}, "8"), ({"do": "reset"}, "6")],
)
def test_an_unreachable_service_is_named_before_anything_is_computed(simulator, fault, setting):
    flags = ["--model_dir=gs://bucket/run", "--data_dir=gs://bucket/data"]
    with simulator.faults({**fault, "match": "testPermissions", "times": -1}):
        error, seconds = command(simulator, "-m", "trainer.task", *flags, STORAGE_RETRY_SECONDS=setting)
    for flag in flags:
        name, path = flag.split("=")
        assert f"{name} must be reachable for checking its bucket. Received: {path} (" in error
    assert f"STORAGE_RETRY_SECONDS ({setting})" in error
    assert seconds < 2 * MAX_SECONDS


FIND = """
from trainer.storage import preflight
uses = [preflight.PathUse("--model_dir", path, writes=True) for path in sys.argv[1:]]
print("\\n".join(str(problem) for problem in preflight.find_path_problems(uses)))
"""


def test_rights_on_a_part_of_the_bucket_are_enough_for_that_part(simulator):
    simulator.bucket("team", permissions=[], folders={"mine/": [*READ.split(", "), *WRITE.split(", ")]})
    assert simulator.storage_python(FIND, "gs://team/mine/run")[0] == ""
    assert "--model_dir must allow" in simulator.storage_python(FIND, "gs://team/others/run")[0]
    code = 'with fs.exclusive_lock("gs://team/mine/run"): fs.write_text("gs://team/mine/run/a", "a")'
    simulator.storage_python(code)
    assert simulator.storage_python('print(fs.list_names("gs://team/mine/run"))')[0] == "['a']"


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_server_that_cannot_be_asked_for_permissions_is_tried(simulator, status):
    with simulator.faults({"do": "status", "status": status, "match": "testPermissions", "times": -1}):
        assert simulator.storage_python(FIND, "gs://bucket/run")[0] == ""
        assert "must be in a bucket that exists" in simulator.storage_python(FIND, "gs://missing/run")[0]


def test_a_check_leaves_no_object_behind(simulator):
    simulator.storage_python(FIND, "gs://bucket", "gs://bucket/run")
    assert simulator.storage_python('print(gcs.list_files("gs://bucket"))')[0] == "[]"


def test_a_retention_policy_is_refused_before_anything_is_computed(simulator):
    simulator.bucket("bucket", retained=True)
    error, seconds = command(simulator, "-m", "trainer.task", "--data_dir=data", "--model_dir=gs://bucket/run")
    assert "--model_dir must allow deleting what was written. Received: gs://bucket/run (403, Object 'bucket/" in error
    assert "is subject to bucket's retention policy" in error
    assert seconds < MAX_SECONDS


def test_a_bucket_whose_requester_pays_needs_a_project(simulator):
    simulator.bucket("bucket", requester_pays=True)
    problem, _ = simulator.storage_python(FIND, "gs://bucket/run")
    assert "Bucket is a requester pays bucket but no user project provided" in problem
    assert "Set GOOGLE_CLOUD_QUOTA_PROJECT to the project that pays" in problem
    assert simulator.storage_python(FIND, "gs://bucket/run", GOOGLE_CLOUD_QUOTA_PROJECT="payer")[0] == ""


def test_a_bucket_in_another_region_than_the_accelerator_is_warned_of(simulator):
    simulator.bucket("far", location="EUROPE-WEST4")
    code = """
import logging
from trainer.storage import preflight
class Printer(logging.Handler):
    def emit(self, record):
        print(record.levelname, record.getMessage())
preflight._LOG.addHandler(Printer())
for name in ("bucket", "far"):
    preflight.check_paths([preflight.PathUse("--data_dir", f"gs://{name}/a")], "us-central1")
"""
    (line,) = simulator.storage_python(code)[0].splitlines()
    assert line.startswith("WARNING --data_dir is in europe-west4, the accelerator in us-central1")


def test_only_paths_in_buckets_are_checked():
    uses = [preflight.PathUse("--data_dir", "data"), preflight.PathUse("--encoder", None)]
    assert preflight.in_buckets(uses) == []
    assert preflight.find_path_problems(uses) == []


def test_a_problem_names_the_flag_as_its_setting(simulator):
    code = """
import dataclasses, json
from trainer.storage import preflight
uses = [preflight.PathUse("--data_dir", "gs://missing/a"), preflight.PathUse("AIP_MODEL_DIR", "gs://", writes=True)]
print(json.dumps([dataclasses.asdict(problem) for problem in preflight.find_path_problems(uses)]))
"""
    missing, nameless = json.loads(simulator.storage_python(code)[0])
    assert (missing["setting"], missing["received"]) == ("--data_dir", "gs://missing/a (no bucket gs://missing)")
    assert (nameless["setting"], nameless["required"]) == ("AIP_MODEL_DIR", "be gs://BUCKET/NAME")


def test_a_folder_of_downloads_must_be_local(simulator):
    error, _ = command(
        simulator, "scripts/prepare_data.py", "--task=imdb", "--output=gs://bucket/out", "--downloads=gs://bucket/d"
    )
    assert "--downloads" in error
    assert "gs://bucket/d" in error


def test_a_bucket_name_that_cannot_exist_is_named_with_its_flag(simulator):
    error, _ = command(simulator, "-m", "trainer.task", "--model_dir=gs://$BUCKET/run", "--data_dir=gs://_x/data")
    for words in ("--model_dir must", "$BUCKET", "--data_dir must", "_x"):
        assert words in error


# --- Local paths that are written -------------------------------------------------------------------


def find(path, **use) -> str:
    return "\n".join(map(str, preflight.find_path_problems([preflight.PathUse("--flag", str(path), True, **use)])))


def test_a_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file.txt").touch()
    (tmp_path / "link").symlink_to(tmp_path / "missing")
    for name in ("file.txt", "file.txt/x", "file.txt/x/y", "link"):
        assert f"{tmp_path}/{name}" in find(tmp_path / name)
    for name in ("", "new", "new/x/y"):
        assert find(tmp_path / name) == ""


def test_a_file_in_a_missing_folder_is_refused(tmp_path):
    for name in ("missing/x.jsonl", ""):
        assert "--flag must" in find(tmp_path / name, is_file=True)
    assert find(tmp_path / "x.jsonl", is_file=True) == ""
    assert find("x.jsonl", is_file=True) == ""


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: str(path) != str(tmp_path))  # Root may write everywhere.
    assert f"no permission to write in {tmp_path}" in find(tmp_path / "run")


@pytest.mark.parametrize(
    ("line", "flag", "path"),
    [
        ("-m trainer.task --data_dir=data", "--model_dir", "file/run"),
        ("-m trainer.task --mode=evaluate --model_dir=runs/x", "--predictions", "missing/x.jsonl"),
        ("scripts/prepare_data.py --task=csv --source=x.csv", "--output", "file/data"),
        ("scripts/import_encoder.py --source=minilm", "--output", "file"),
    ],
)
def test_a_local_path_that_cannot_be_written_is_named_at_once(tmp_path, line, flag, path):
    (tmp_path / "file").touch()
    done = subprocess.run(
        [sys.executable, *line.split(), f"{flag}={tmp_path}/{path}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert f"{flag} must" in done.stderr
