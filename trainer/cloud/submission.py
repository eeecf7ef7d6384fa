"""What scripts/submit.py does with a job or an export: print it, or check its buckets and send it."""

import logging
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from trainer.cloud import (
    ai_platform,
    endpoints,
    gcloud_config,
    google_api,
    job_logs,
    job_spec,
    tuning_spec,
    vertex_client,
)
from trainer.cloud.job_request import JobRequest
from trainer.cloud.tuning_spec import Study
from trainer.config import loading
from trainer.config.schema import Config
from trainer.data import manifests
from trainer.errors import EXIT_DONE, EXIT_FAILED, Problem, UsageError, UserError
from trainer.storage import fs, gcs, preflight
from trainer.storage.preflight import PathUse

_LOG = logging.getLogger(__name__)

PROJECT_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def build_job(request: JobRequest, study: Study | None) -> tuple[dict[str, Any], str]:
    """(a CustomJob, or a HyperparameterTuningJob for a study, in the JSON mapping of its proto; its collection)."""
    if study:
        return tuning_spec.build_tuning_job(study, request), vertex_client.TUNING_JOBS
    return job_spec.build_custom_job(request), vertex_client.CUSTOM_JOBS


def print_yaml(*documents: Mapping[str, Any]) -> None:
    print(yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True, width=1000), end="")


def submit_to_vertex(
    request: JobRequest, study: Study | None, *, print_format: str | None, follow_interval_s: float | None
) -> int:
    """Print the job, or check its buckets, submit it, and follow it if there is an interval. Returns an exit code.

    `print_format`: None to submit, "job" for the job as it is sent, "gcloud" for the file that gcloud's --config takes.
    """
    job, collection = build_job(request, study)
    if print_format == "gcloud":
        print(f"# {shlex.join(gcloud_config.build_command(request, collection))}")
        print_yaml(gcloud_config.build_config(job))
        return EXIT_DONE
    if print_format:
        print_yaml(job)
        return EXIT_DONE
    google_api.check_installed()
    check_buckets(request, study)
    name = vertex_client.submit_job(job, request.project, request.region, collection)
    print(f"{name.full}\n{name.console_url}", flush=True)
    return EXIT_DONE if follow_interval_s is None else job_logs.follow_job(name, follow_interval_s)


def submit_to_ai_platform(request: JobRequest, *, dry_run: bool, stream_logs: bool) -> int:
    """Print gcloud's command, or run it. Returns an exit code."""
    problems = ai_platform.find_problems(request)
    if problems:
        raise UsageError(*problems)
    command = ai_platform.build_command(request)
    if dry_run:
        print(shlex.join(command))
        return EXIT_DONE
    if not shutil.which(command[0]):
        required, received = "find gcloud on the PATH, which it runs", "a PATH without it"
        advice = "Install Google Cloud's command line, print the command with --dry_run, or use --target=vertex."
        raise UserError(Problem("--target=ai_platform", required, received, advice))
    options = ["--stream-logs"] if stream_logs else []
    result = subprocess.run([*command[:6], *options, *command[6:]], cwd=PROJECT_ROOT)
    return EXIT_FAILED if result.returncode else EXIT_DONE


def check_buckets(request: JobRequest, study: Study | None) -> None:
    """Raises UsageError unless the buckets hold what the job reads, and allow what it writes."""
    config, base = request.config, request.base_output_directory
    uses = [
        PathUse("--data_dir", config.data_dir),
        PathUse("--encoder", config.encoder),
        PathUse("--init_from", config.init_from),
        PathUse("--base_output_directory", base, writes=True),
    ]
    # One check of each bucket, of the last use of it, since only the last one writes.
    use_of_bucket = {gcs.split_path(use.path or "")[0]: use for use in preflight.in_buckets(uses)}
    preflight.check_paths(list(use_of_bucket.values()), request.region)
    if not fs.exists(fs.join(config.data_dir, manifests.MANIFEST_FILE)):
        received = f"{config.data_dir}, which has no {manifests.MANIFEST_FILE}"
        raise UsageError(Problem("--data_dir", "hold a data set of scripts/prepare_data.py", received))
    if config.encoder.startswith(gcs.GCS_PREFIX) and not fs.is_folder(config.encoder):
        folder, name = os.path.split(config.encoder)
        copied = shlex.join([f"encoders/{name}", f"{folder}/"])
        advice = f"Copy it, such as: gcloud storage cp --recursive {copied}"
        raise UsageError(Problem("--encoder", "exist", f"{config.encoder}, which does not", advice))
    if config.init_from and not fs.is_folder(config.init_from):
        raise UsageError(Problem("--init_from", "exist", f"{config.init_from}, which does not"))
    manifest = manifests.read_manifest(config.data_dir)
    loading.check_replicas(config, request.devices, manifest.splits["train"].examples)
    _check_labels(config, manifest)
    if study:
        tuning_spec.check_metric(study, manifest.kind, config.training.best_metric)
        if fs.is_folder(fs.join(base, "1")):
            received = f"{base}, which has the trials of another study"
            raise UsageError(Problem("--name or --base_output_directory", "be new with --tune", received))


def _check_labels(config: Config, manifest: manifests.Manifest) -> None:
    """Raises UsageError for settings that do not suit the labels, as the job would."""
    from trainer.train import builder  # Imports TensorFlow, which a dry run does not wait for.

    if problems := builder.find_label_problems(config, manifest):
        raise UsageError(*problems)


def serve(requests: Sequence[endpoints.Request], model: str, region: str, *, dry_run: bool) -> int:
    """Print what deploys the export `model`, or do it. Returns an exit code."""
    if dry_run:
        print_yaml(*requests)
        return EXIT_DONE
    google_api.check_installed()
    preflight.check_paths([PathUse("--model", model, writes=True)], region)
    for request in requests:
        endpoints.parse_request(request)  # Raises before anything is written.
    endpoints.copy_for_serving(model)
    endpoint = endpoints.send_requests(list(requests), region)
    print(f"{endpoint}\n{endpoints.predict_command(endpoint, region)}")
    return EXIT_DONE
