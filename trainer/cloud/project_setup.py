"""What a project needs before its first job: services, a bucket, a repository of images. Each is made once."""

from typing import Any

from trainer.cloud.google_api import WITHIN, Refused, asked, credentials, finished, said
from trainer.errors import UsageError
from trainer.storage import gcs, retries

# Compute Engine's own account is what a project's first build runs as:
# https://cloud.google.com/build/docs/cloud-build-service-account
SERVICES = tuple(
    f"{name}.googleapis.com"
    for name in ("aiplatform", "artifactregistry", "cloudbuild", "compute", "logging", "storage")
)
REPOSITORY = "hubtune"
# Seconds that Google may take to enable services, or to make a repository.
LONGEST = 300.0


def enable_services(project: str) -> list[str]:
    """Enable those of SERVICES that are not; which those were. Raises Refused."""
    from google.cloud import service_usage_v1 as api

    client = api.ServiceUsageClient(credentials=credentials())
    parent, doing = f"projects/{project}", f"a look at the services of {project}"
    wanted = {"parent": parent, "names": [f"{parent}/services/{service}" for service in SERVICES]}
    found = asked(client.batch_get_services, api.BatchGetServicesRequest(wanted), doing, project)
    enabled = {service.name.rsplit("/", 1)[-1] for service in found.services if service.state == api.State.ENABLED}
    missing = [service for service in SERVICES if service not in enabled]
    if missing:
        doing = f"enabling {', '.join(missing)}"
        request = api.BatchEnableServicesRequest(parent=parent, service_ids=missing)
        finished(asked(client.batch_enable_services, request, doing, project), LONGEST, doing, project)
    return missing


def make_bucket(project: str, region: str, name: str) -> bool:
    """Make a bucket in the region, closed to the public, its rights its own; False if it is there already.

    Raises UsageError if it is in another region, Refused if its name is somebody else's.
    """
    from google.api_core.exceptions import Conflict, Forbidden, NotFound

    options: Any = {"retry": retries.google_retry(WITHIN), "timeout": min(4.0, retries.request_timeout_s())}
    taken = f"--bucket must be a name that is free, or a bucket that may be used. Received: {name}, which is neither."
    with said(f"the bucket gs://{name}", project):
        client = gcs.client()
        try:
            found = client.lookup_bucket(name, **options)
        except Forbidden:
            raise Refused(taken) from None
        if found is not None:
            _hold_region(found, region)
            return False
        bucket = client.bucket(name)
        bucket.iam_configuration.uniform_bucket_level_access_enabled = True
        bucket.iam_configuration.public_access_prevention = "enforced"
        try:
            client.create_bucket(bucket, project=project, location=region, **options)
        except Conflict:
            # Names are everybody's. It may also be ours: made by a request whose reply was lost.
            if client.lookup_bucket(name, **options) is None:
                raise Refused(taken) from None
        except NotFound:
            raise Refused(f"--project must be a project that is there. Received: {project}.") from None
    return True


def _hold_region(bucket: Any, region: str) -> None:
    """A multi-region, such as EU, may be near; which regions it serves well is not ours to say."""
    place = str(bucket.location).lower()
    if "-" in place and place != region:
        raise UsageError(
            f"--bucket must be in --region, {region}. Received: gs://{bucket.name}, which is in {place}. Name another "
            f"bucket, which will be made, or --region={place}."
        )


def make_repository(project: str, region: str, fresh: bool) -> bool:
    """Make the repository of images; False if it is there already. `fresh`: the service was enabled a moment ago."""
    from google.api_core.exceptions import AlreadyExists, NotFound
    from google.cloud import artifactregistry_v1 as api

    client = api.ArtifactRegistryClient(credentials=credentials())
    parent = f"projects/{project}/locations/{region}"
    look = api.GetRepositoryRequest(name=f"{parent}/repositories/{REPOSITORY}")
    try:
        doing = f"a look at the repository {REPOSITORY}"
        asked(client.get_repository, look, doing, project, but=(NotFound,), fresh=fresh)
        return False
    except NotFound:
        pass
    docker = api.Repository(format_=api.Repository.Format.DOCKER, description="The images of HubTune's jobs.")
    request = api.CreateRepositoryRequest(parent=parent, repository_id=REPOSITORY, repository=docker)
    doing = f"making the repository {REPOSITORY}"
    mine = NotFound, AlreadyExists
    try:
        finished(asked(client.create_repository, request, doing, project, but=mine), LONGEST, doing, project, mine)
    except AlreadyExists:  # made by a request whose reply was lost
        pass
    except NotFound:
        raise Refused(f"--region must be one that Artifact Registry has. Received: {region}.") from None
    return True
