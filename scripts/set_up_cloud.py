"""From a project id to images that jobs can run: what is there already is left as it is.

  python scripts/set_up_cloud.py --project=P --region=us-central1 --bucket=B

1. enables the services that a job uses      3. makes a repository of images, `hubtune`
2. makes the bucket in that region           4. uploads this checkout, and has Cloud Build test it and build its images

It prints the images' names; everything else is on standard error. Interrupted, it can be started again: a build under
way is followed, not started twice. --dry_run prints the build, as YAML, and touches nothing.
"""

import re
import sys

from absl import flags

from trainer import errors
from trainer.cloud import google_api, image_builds, project_setup
from trainer.runtime import app
from trainer.storage import gcs

PROJECT = flags.DEFINE_string("project", None, "the project's id", required=True)
REGION = flags.DEFINE_string("region", "us-central1", "of the bucket, the images and, later, the jobs")
BUCKET = flags.DEFINE_string("bucket", None, "the bucket's name; it is made if it is not there", required=True)
IMAGES = flags.DEFINE_list("images", [*image_builds.IMAGES], "which images: cpu, gpu, tpu")
TESTS = flags.DEFINE_bool(
    "tests", True, "have the build run the checks, the tests and a smoke run first (half an hour)"
)
DRY_RUN = flags.DEFINE_bool("dry_run", False, "only say what would be done")

# https://cloud.google.com/resource-manager/docs/creating-managing-projects and
# https://cloud.google.com/storage/docs/buckets#naming
PATTERNS = {
    "project": (r"[a-z][a-z0-9-]{4,28}[a-z0-9]", "a project's id, such as my-project-123"),
    "region": (r"[a-z]+-[a-z]+[0-9]+", "a region, such as us-central1"),
    "bucket": (r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]", "a bucket's name, such as my-bucket"),
}


def problems(values: dict[str, str], images: list[str]) -> list[str]:
    """What is wrong with the flags, one line each."""
    found = [
        f"--{flag} must be {what}. Received: {values[flag]!r}."
        for flag, (pattern, what) in PATTERNS.items()
        if not re.fullmatch(pattern, values[flag])
    ]
    if not images or set(images) - set(image_builds.IMAGES):
        found.append(f"--images must be of {', '.join(image_builds.IMAGES)}. Received: {','.join(images)!r}.")
    return found


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def main(argv: list[str]) -> None:
    app.reject_positional_arguments(argv)
    project, region, bucket = PROJECT.value, REGION.value, BUCKET.value.removeprefix(gcs.GCS_PREFIX).rstrip("/")
    kinds = list(dict.fromkeys(IMAGES.value))
    images = {kind: address for kind, address in image_builds.addresses(project, region).items() if kind in kinds}
    if found := problems({"project": project, "region": region, "bucket": bucket}, kinds):
        raise errors.UsageError("\n".join(found))
    source = image_builds.archive()
    marked = image_builds.mark(source)
    if DRY_RUN.value:
        plan(project, region, bucket, images, marked, len(source))
        return
    google_api.check_installed()
    enabled = project_setup.enable_services(project)
    say(f"services: {'enabled ' + ', '.join(enabled) if enabled else 'all enabled already'}")
    made = project_setup.make_bucket(project, region, bucket)
    say(f"gs://{bucket}: {'made' if made else 'is there already'}")
    made = project_setup.make_repository(project, region, bool(enabled))
    say(f"repository {region}/{project_setup.REPOSITORY}: {'made' if made else 'is there already'}")
    path = f"gs://{bucket}/{image_builds.source_name(marked)}"
    there = gcs.exists(path)
    if not there:
        gcs.write(path, source)
    say(f"{path}: {'is there already' if there else f'uploaded, {len(source) / 1e6:.1f} MB'}")
    have_images(project, region, bucket, images, marked, bool(enabled))
    print("\n".join(images.values()))


def have_images(project: str, region: str, bucket: str, images: dict[str, str], marked: str, fresh: bool) -> None:
    """Follow the build that makes the missing ones, or start it."""
    earlier = image_builds.builds(project, marked, fresh)
    there = image_builds.in_registry(images, project, earlier)
    say(
        "\n".join(
            f"{image}: {'is there already' if kind in there else 'to be built'}" for kind, image in images.items()
        )
    )
    missing = {kind: image for kind, image in images.items() if kind not in there}
    if not missing:
        return
    one = image_builds.under_way(earlier, missing.values())
    say("following a build that is under way" if one else "starting a build")
    if one is None:
        wanted = image_builds.build(region, bucket, [*missing], TESTS.value, marked)
        one = image_builds.start(project, wanted)
    say(f"build {one.id}: {one.log_url}")
    image_builds.follow(project, one, say)


def plan(project: str, region: str, bucket: str, images: dict[str, str], marked: str, size: int) -> None:
    """What would be done, where it is not done already; the build on standard output."""
    import yaml

    say(f"would enable in {project}: {', '.join(project_setup.SERVICES)}")
    say(f"would make gs://{bucket} in {region}, closed to the public")
    say(f"would make the repository {project_setup.REPOSITORY} of Docker images in {region}")
    say(f"would upload gs://{bucket}/{image_builds.source_name(marked)}, {size / 1e6:.1f} MB")
    say(f"would start this build of {', '.join(images.values())}")
    wanted = image_builds.build(region, bucket, [*images], TESTS.value, marked)
    print(yaml.safe_dump(wanted, sort_keys=False), end="")


if __name__ == "__main__":
    app.run(main, __doc__)
