"""Credentials and certificates of every kind, in another process: what is read with them, and how a refusal is told."""

import json

import pytest
from fakes import gcs_certificate

ROUND_TRIP = """
from trainer.train import checkpoints
series = checkpoints.CheckpointSeries(tf.train.Checkpoint(v=tf.Variable(7.0)), folder, 3)
checkpoints.save_checkpoint(series, 1)
print(checkpoints.restore_newest(series), fs.list_names(folder)[0])
"""


def write_json(path, **values) -> str:
    path.write_text(json.dumps(values))
    return str(path)


@pytest.fixture
def external_account(tmp_path) -> dict:
    """What `gcloud iam workload-identity-pools create-cred-config` writes, for a token in a file."""
    (tmp_path / "subject").write_text("a token of another provider")
    return {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token",
        "credential_source": {"file": str(tmp_path / "subject")},
    }


IMPERSONATION = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/a@b.iam.gserviceaccount.com"


@pytest.mark.parametrize("impersonated", [False, True])
def test_workload_identity_federation_saves_and_restores(simulator, external_account, tmp_path, impersonated):
    simulator.bucket("bucket", token="of-the-impersonated" if impersonated else "of-the-simulator")
    if impersonated:
        external_account["service_account_impersonation_url"] = f"{IMPERSONATION}:generateAccessToken"
    path = write_json(tmp_path / "credentials.json", **external_account)
    out, _ = simulator.storage_python(ROUND_TRIP, GOOGLE_APPLICATION_CREDENTIALS=path)
    assert out == "1 checkpoint"


def test_an_impersonated_service_account_saves_and_restores(simulator, tmp_path):
    simulator.bucket("bucket", token="of-the-impersonated")
    path = write_json(
        tmp_path / "credentials.json",
        type="impersonated_service_account",
        service_account_impersonation_url=f"{IMPERSONATION}:generateAccessToken",
        source_credentials={"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"},
    )
    out, _ = simulator.storage_python(ROUND_TRIP, GOOGLE_APPLICATION_CREDENTIALS=path)
    assert out == "1 checkpoint"


def test_credentials_that_are_refused_are_named(simulator, external_account, tmp_path):
    path = write_json(tmp_path / "credentials.json", **external_account)
    code = """
try:
    fs.read_text(f"{folder}/a")
except OSError as error:
    print(error)
"""
    fault = {"do": "status", "status": 400, "message": "The audience is unknown.", "match": "sts", "times": -1}
    with simulator.faults(fault):
        out, _ = simulator.storage_python(code, GOOGLE_APPLICATION_CREDENTIALS=path)
    assert "must be used with Google credentials that the service accepts. Received: " in out
    assert "The audience is unknown" in out


def test_a_refused_impersonation_is_given_with_the_service_s_reason(simulator, external_account, tmp_path):
    external_account["service_account_impersonation_url"] = f"{IMPERSONATION}:generateAccessToken"
    path = write_json(tmp_path / "credentials.json", **external_account)
    reason = "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist)."
    code = """
try:
    fs.read_text(f"{folder}/a")
except OSError as error:
    print(error)
"""
    with simulator.faults({"do": "status", "status": 403, "message": reason, "match": "iamcredentials", "times": -1}):
        out, _ = simulator.storage_python(code, GOOGLE_APPLICATION_CREDENTIALS=path)
    assert f"Received: Unable to acquire impersonated credentials: {reason} Grant the caller roles/iam.service" in out


def test_a_token_service_that_is_out_of_order_is_no_fault_of_credentials(simulator):
    code = """
try:
    fs.read_text(f"{folder}/a")
except OSError as error:
    print(error)
"""
    with simulator.faults({"do": "status", "status": 503, "match": "oauth2", "times": -1}):
        out, _ = simulator.storage_python(code, UNUSED="a process without a token")
    assert "must be reachable for reading" in out
    assert "un the same command again" in out


def test_a_silent_service_of_tokens_is_given_up_within_15_s(simulator, external_account, tmp_path):
    path = write_json(tmp_path / "credentials.json", **external_account)
    code = """
from trainer.storage import preflight
print(*preflight.find_path_problems([preflight.PathUse("--data_dir", folder)]))
"""
    with simulator.faults({"do": "hang", "seconds": 30, "match": "sts", "times": -1}):
        out, seconds = simulator.storage_python(code, GOOGLE_APPLICATION_CREDENTIALS=path)
    assert "--data_dir must be reachable for checking its bucket. Received: gs://bucket/run (TransportError" in out
    assert seconds < 15


def test_a_public_bucket_is_read_without_credentials(simulator, tmp_path):
    simulator.storage_python('fs.write_text("gs://bucket/a", "public")')
    nothing = {"GOOGLE_APPLICATION_CREDENTIALS": "", "CLOUDSDK_CONFIG": str(tmp_path), "HOME": str(tmp_path)}
    code = """
def outcome(function, *arguments):
    try:
        print(function(*arguments))
    except OSError as error:
        print(error)
outcome(fs.read_text, "gs://public/a")
outcome(fs.list_names, "gs://public")
outcome(fs.write_text, "gs://public/b", "no")
outcome(fs.read_text, "gs://bucket/a")
"""
    simulator.bucket("public", anonymous=["storage.objects.get", "storage.objects.list"])
    simulator.storage_python('fs.write_text("gs://public/a", "public")')
    simulator.bucket("bucket", anonymous=[])
    read, listed, written, private = simulator.storage_python(code, **nothing)[0].splitlines()
    assert (read, listed) == ("public", "['a']")
    for refused in (written, private):
        assert "must be used with Google credentials that the service accepts. Received: none. Run `gcloud" in refused


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_certificates_of_a_company_are_trusted_by_one_variable(simulator, variable):
    variables = dict.fromkeys(("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"), "")
    variables[variable] = str(simulator.folder / "ca.pem")
    assert simulator.storage_python(ROUND_TRIP, **variables)[0] == "1 checkpoint"


def test_an_unknown_certificate_is_no_reason_to_run_again(simulator, tmp_path):
    other = tmp_path / "other.pem"
    gcs_certificate.create_context(tmp_path, ["other.example"])
    (tmp_path / "ca.pem").rename(other)
    code = """
try:
    fs.read_text(f"{folder}/a")
except OSError as error:
    print(error)
"""
    out, _ = simulator.storage_python(code, REQUESTS_CA_BUNDLE=str(other))
    assert "CERTIFICATE_VERIFY_FAILED" in out
    assert "Set REQUESTS_CA_BUNDLE to" in out
    assert "un the same command again" not in out
