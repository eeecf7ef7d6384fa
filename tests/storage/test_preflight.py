"""Buckets that cannot be used, in every flag of every command: named at once, before TensorFlow is even imported.

The seconds are those of the whole process, as a user waits for them.
"""

import socket
import subprocess
import sys
import time

import pytest
from helpers import ROOT
from test_gcs import python

# Command -> its flags that take a path, and whether it writes there.
COMMANDS = {
    "scripts/prepare_data.py --task=csv": {
        **dict.fromkeys(("--source=", "--test_source=", "--encoder=", "--preprocess=", "--inspect="), False),
        "--output=": True,
    },
    "scripts/import_encoder.py": {"--source=hf:": False, "--output=": True},
    "-m trainer.task": {"--config=": False, "--data_dir=": False, "--encoder=": False, "--model_dir=": True},
    "-m trainer.task --mode=evaluate": {"--model_dir=": False, "--predictions=": True},
    "-m trainer.task --mode=export": {"--model_dir=": True},
    "scripts/predict.py": {"--model=": False, "--input=": False},
}
WITHIN = 15
READ = "storage.objects.get, storage.objects.list"
CHANGE = "storage.objects.create, storage.objects.delete"


def command(simulator, *arguments, **changes):
    """(standard error, seconds) of a command that is refused before it computes anything."""
    began = time.monotonic()
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
    return done.stderr, time.monotonic() - began


@pytest.mark.parametrize("line", COMMANDS)
def test_every_missing_bucket_is_named_in_15_seconds(simulator, line):
    error, took = command(simulator, *line.split(), *(f"{flag}gs://missing/a" for flag in COMMANDS[line]))
    for flag in COMMANDS[line]:
        assert (
            f"{flag.split('=')[0]}: The bucket of gs://missing/a must exist. Received: gs://missing, which does not. "
            "Make it, or name another path." in error
        ), error
    assert took < WITHIN


@pytest.mark.parametrize("line", COMMANDS)
def test_every_permission_that_is_wanting_is_named_in_15_seconds(simulator, line):
    simulator.bucket("readonly", permissions=READ.split(", "))
    simulator.bucket("closed", permissions=[])
    paths = (f"{flag}gs://{'readonly' if writes else 'closed'}/a" for flag, writes in COMMANDS[line].items())
    error, took = command(simulator, *line.split(), *paths)
    for flag, writes in COMMANDS[line].items():
        wanted = f"{READ}, {CHANGE} on gs://readonly" if writes else f"{READ} on gs://closed"
        name = flag.split("=")[0]
        assert (
            f"{name}: The account that this runs as must be allowed {wanted}. Received: no "
            f"{CHANGE if writes else READ}. Grant it roles/storage.objectAdmin there, or name another {name}." in error
        ), error
    assert took < WITHIN


@pytest.mark.parametrize("line", COMMANDS)
def test_without_credentials_every_command_says_in_15_seconds_how_to_get_them(simulator, tmp_path, line):
    paths = (f"{flag}gs://bucket/a" for flag in COMMANDS[line])
    error, took = command(simulator, *line.split(), *paths, **without_credentials(tmp_path))
    assert "gs://bucket/a needs Google credentials. Received: none. Run `gcloud auth application-default lo" in error
    assert error.count("needs Google credentials") == 1
    assert took < WITHIN


def without_credentials(folder) -> dict[str, str]:
    return {"GOOGLE_APPLICATION_CREDENTIALS": "", "CLOUDSDK_CONFIG": str(folder), "HOME": str(folder)}


def test_credentials_are_looked_for_on_the_machine_no_longer_than_15_seconds(simulator, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes a connection, and never says a word
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        error, took = command(
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
    assert "needs Google credentials. Received: none." in error
    assert took < WITHIN


def test_a_key_file_that_is_not_there_is_named(simulator):
    error, _ = command(simulator, "scripts/predict.py", "--model=gs://bucket/a", GOOGLE_APPLICATION_CREDENTIALS="/no")
    assert "gs://bucket/a needs Google credentials. Received: File /no was not found. Run" in error


def test_what_is_wrong_with_the_configuration_and_with_the_buckets_that_it_names_is_told_at_once(simulator):
    code = 'fs.write_text("gs://bucket/c.yaml", "encoder: gs://missing/encoder\\ndata_dir: gs://bucket/data\\n")'
    python(simulator, code)
    flags = ["--config=gs://bucket/c.yaml", "--model_dir=gs://missing/run"]
    error, _ = command(simulator, "-m", "trainer.task", *flags)
    assert "--model_dir: The bucket of gs://missing/run must exist." in error
    assert "--encoder: The bucket of gs://missing/encoder must exist." in error
    assert "data_dir" not in error
    error, _ = command(simulator, "-m", "trainer.task", *flags, "--set", "data.batch_size=many")
    assert "--model_dir: The bucket of gs://missing/run must exist." in error
    assert "data.batch_size: a valid integer was required. Received: 'many'." in error


@pytest.mark.parametrize(
    ("fault", "setting"),
    [({"do": "hang", "seconds": 60}, "8"), ({"do": "reset"}, "6")],
)
def test_a_service_out_of_reach_is_named_before_anything_is_computed(simulator, fault, setting):
    flags = ["--model_dir=gs://bucket/run", "--data_dir=gs://bucket/data"]
    with simulator.faults({**fault, "match": "testPermissions", "times": -1}):
        error, took = command(simulator, "-m", "trainer.task", *flags, STORAGE_RETRY_SECONDS=setting)
    for flag in flags:
        name, path = flag.split("=")
        assert f"{name}: {path} could not be reached for a look at its bucket. Received: " in error
    assert f"Run the same command again; STORAGE_RETRY_SECONDS ({setting}) is how long" in error
    assert took < 2 * WITHIN


def test_a_bucket_in_another_region_than_the_accelerator_is_named(simulator):
    simulator.bucket("far", location="EUROPE-WEST4")
    code = """
from trainer.storage import preflight
import contextlib, io
with contextlib.redirect_stderr(io.StringIO()) as said:
    for name in ("bucket", "far"):
        preflight.check_paths({"data_dir": (f"gs://{name}/a", False)}, "us-central1")
print(said.getvalue())
"""
    out, _ = python(simulator, code)
    assert out.count("warning") == 1
    assert "--data_dir is in europe-west4, the accelerator in us-central1" in out


def test_the_machine_s_region_is_asked_of_its_metadata_server(simulator):
    code = "from trainer.storage import preflight\nprint(preflight.machine_region())"
    host = f"127.0.0.1:{simulator.port}"
    assert python(simulator, code, GCE_METADATA_HOST=host, NO_GCE_CHECK="")[0] == "us-central1"
    assert python(simulator, code)[0] == "None"


def test_a_folder_of_downloads_must_be_local(simulator):
    error, _ = command(
        simulator, "scripts/prepare_data.py", "--task=imdb", "--output=gs://bucket/out", "--downloads=gs://bucket/d"
    )
    assert "--downloads must be a folder of this machine. Received: gs://bucket/d." in error
