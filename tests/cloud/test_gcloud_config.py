"""What submit.py --dry_run --format=gcloud prints: the service's message of the same job, and gcloud's own request."""

import http.server
import json
import shlex
import shutil
import subprocess
import threading

import pytest
import yaml
from fakes.vertex_jobs import parse_custom_job
from google.cloud import aiplatform_v1
from google.protobuf import json_format
from helpers import python

from trainer.cloud import gcloud_config, job_spec, machine_types, vertex_client

SUBMIT = ["scripts/submit.py", "--config=configs/smoke.yaml", "--project=p", "--region=us-central1", "--bucket=bucket"]
# A name that is false in YAML 1.1, which gcloud reads.
GIVEN = ["--name=n", "--machine=workers", "--spot", "--labels=team=nlp,stage=test", "--service_account=a@p.iam"]


def printed(offline, *arguments: str) -> tuple[str, str]:
    """(the job as it would be sent, the file for gcloud)."""
    outputs = []
    for printed_as in ("job", "gcloud"):
        done = python(*SUBMIT, *arguments, "--dry_run", f"--format={printed_as}", env=offline)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    return outputs[0], outputs[1]


@pytest.mark.parametrize("machine", machine_types.SHORT_NAMES)
def test_the_file_is_the_spec_of_the_job_that_is_sent(build_request, machine):
    job = job_spec.build_custom_job(build_request(machine=machine, spot=True, labels=["team=nlp"]))
    message = aiplatform_v1.CustomJobSpec()
    text = yaml.safe_dump(gcloud_config.build_config(job))
    json_format.ParseDict(yaml.safe_load(text), type(message).pb(message))
    assert message == parse_custom_job(job).job_spec


def test_what_the_file_cannot_hold_is_in_the_command(build_request):
    request = build_request(name="mine", labels=["team=nlp", "stage=test"])
    command = gcloud_config.build_command(request, vertex_client.CUSTOM_JOBS)
    assert command[:4] == ["gcloud", "ai", "custom-jobs", "create"]
    assert {"--display-name=mine", "--labels=team=nlp,stage=test", "--config=job.yaml"} < set(command)
    plain = gcloud_config.build_command(build_request(), vertex_client.TUNING_JOBS)
    assert plain[2] == "hp-tuning-jobs"
    assert not [word for word in plain if word.startswith("--labels")]


def test_the_printed_file_begins_with_the_command_as_a_comment(offline):
    job, config = printed(offline, *GIVEN)
    first = config.splitlines()[0]
    assert shlex.split(first.removeprefix("# "))[:4] == ["gcloud", "ai", "custom-jobs", "create"]
    assert yaml.safe_load(config) == yaml.safe_load(job)["jobSpec"]


def test_the_format_is_refused_where_it_changes_nothing(offline):
    for arguments in (["--format=gcloud"], ["--format=gcloud", "--dry_run", "--serve"]):
        done = python(*SUBMIT, *arguments, env=offline)
        assert (done.returncode, done.stdout) == (2, "")
        assert "--format must" in done.stderr


# --- gcloud itself --------------------------------------------------------------------------------


class Service(http.server.BaseHTTPRequestHandler):
    """Takes a job, and answers with its name."""

    def do_POST(self):
        self.server.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        collection = self.path.partition("?")[0].rpartition("/")[2]
        name = f"projects/p/locations/us-central1/{collection}/17"
        answer = json.dumps({"name": name, "state": "JOB_STATE_PENDING"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments):
        pass


@pytest.mark.skipif(not shutil.which("gcloud"), reason="gcloud is not installed")
@pytest.mark.parametrize("tune", [(), ("--tune=configs/tune_imdb.yaml",)])
def test_gcloud_sends_what_submit_sends(offline, tmp_path, tune):
    job, config = printed(offline, *GIVEN, *tune)
    (tmp_path / gcloud_config.CONFIG_FILE).write_text(config, encoding="utf-8")
    command = shlex.split(config.splitlines()[0].removeprefix("# "))
    with http.server.HTTPServer(("127.0.0.1", 0), Service) as server:
        server.received = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {
            "PATH": offline["PATH"],
            "HOME": str(tmp_path),
            "CLOUDSDK_CONFIG": str(tmp_path / "gcloud"),
            "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "1",
            "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM": f"http://127.0.0.1:{server.server_port}/",
        }
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
        server.shutdown()
    assert done.returncode == 0, done.stderr
    sent = aiplatform_v1.HyperparameterTuningJob() if tune else aiplatform_v1.CustomJob()
    expected = type(sent)()
    json_format.ParseDict(server.received[0], type(sent).pb(sent))
    json_format.ParseDict(yaml.safe_load(job), type(expected).pb(expected))
    assert sent == expected
