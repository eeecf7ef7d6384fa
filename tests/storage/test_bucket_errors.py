"""A service's own reason for a refusal, and the advice that fits it."""

import pytest

CHECK = """
from trainer.storage import preflight
use = preflight.PathUse("--model_dir", "gs://bucket/run", writes=True)
print("\\n".join(map(str, preflight.find_path_problems([use]))))
"""
# A part of the service's own words -> the words of the advice. None: there is no advice of ours.
REASONS = {
    "Request is prohibited by organization's policy. vpcServiceControlsUniqueIdentifier: a1b2": "service perimeter",
    "The billing account for the owning project is disabled in state absent": "Enable the billing",
    "Permission denied on Cloud KMS key. Please ensure that your service account is authorized": "encryption key",
    "Object 'bucket/a' is under active Event-Based hold and cannot be deleted": "without holds",
    "The caller does not have storage.objects.create access to the object.": "roles/storage.objectAdmin",
    "billing-hold@kms.example does not have storage.objects.create access.": "roles/storage.objectAdmin",
    "Something that nobody has seen before": "",
}


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("status", [400, 403, 412, 413])
def test_the_services_own_reason_is_given_with_fitting_advice(simulator, reason, status):
    with simulator.faults({"do": "status", "status": status, "message": reason, "match": "POST .*upload", "times": -1}):
        problem, seconds = simulator.storage_python(CHECK)
    assert f"--model_dir must allow writing. Received: gs://bucket/run ({status}, {reason.rstrip('.')})" in problem
    assert REASONS[reason] in problem
    assert ("objectAdmin" in problem) == ("objectAdmin" in REASONS[reason])
    assert "un the same command again" not in problem
    assert "https://" not in problem
    assert seconds < 15
