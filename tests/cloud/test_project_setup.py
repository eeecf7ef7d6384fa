"""What a project must have, and what it may not: by the command that sets it up, against services on the loopback."""

from fakes.grpc_services import Refusal
from test_set_up_cloud import DENIED, Cloud, at, set_up

from trainer.cloud import project_setup


def test_a_service_just_enabled_is_given_time_to_notice(simulator):
    cloud = Cloud()
    late = [Refusal(DENIED, "It is disabled.", "SERVICE_DISABLED"), cloud.repository]
    with at(simulator, cloud, GetRepository=late) as server:
        done = set_up(simulator, "--images=cpu")
        assert done.returncode == 0, done.stderr
        assert len(server.requests("GetRepository")) == 2


def test_a_bucket_in_another_region_is_refused_before_anything_is_built(simulator):
    simulator.bucket("made-bucket", location="EUROPE-WEST1")
    with at(simulator, Cloud(enabled=set(project_setup.SERVICES))) as server:
        done = set_up(simulator)
        assert (done.returncode, done.stdout) == (2, "")
        assert "--region=europe-west1" in done.stderr
        assert not server.requests("CreateRepository")


def test_somebody_else_s_bucket_is_refused(simulator):
    simulator.bucket("made-bucket", permissions=[])
    with at(simulator, Cloud(enabled=set(project_setup.SERVICES))):
        done = set_up(simulator)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        "error: --bucket must be a name that is free, or a bucket that may be used. Received: made-bucket"
        in done.stderr
    )
