"""Submit a training job to Vertex AI, or print it; or deploy what a job exported.

Examples:
  python scripts/submit.py --config=configs/imdb_minilm.yaml \\
      --project=P --region=us-central1 --bucket=B --dry_run
  python scripts/submit.py --config=configs/imdb_minilm.yaml --tune=configs/tune_imdb.yaml \\
      --project=P --region=us-central1 --bucket=B --follow
  python scripts/submit.py --follow_job=projects/P/locations/us-central1/customJobs/ID
  python scripts/submit.py --serve --model=gs://B/runs/NAME/model --project=P --region=us-central1

Without --dry_run, the buckets are checked and the job is submitted. With it, nothing is reached, and a CustomJob is
printed as YAML. docs/cloud.md has everything from a project's id to a finished job.
"""

import dataclasses
import logging
import os

from absl import flags

import trainer
from trainer.cloud import (
    ai_platform,
    endpoints,
    google_api,
    job_logs,
    job_request,
    machine_types,
    submission,
    tuning_spec,
    vertex_client,
)
from trainer.cloud.job_request import JobOptions
from trainer.config import flags as config_flags
from trainer.errors import Problem, UsageError
from trainer.runtime import app, versions

_LOG = logging.getLogger("trainer.submit")

DEFAULT_SERVING_MACHINE = "n1-standard-4"
# Flags of JobOptions, and --tune, that AI Platform had no counterpart for.
VERTEX_FLAGS = ("image", "spot", "restarts", "timeout_hours", "network", "tpu_topology", "tune", "format")

TARGET = flags.DEFINE_enum("target", "vertex", ["vertex", "ai_platform"], "The service. AI Platform ended in 2025.")
TUNE = flags.DEFINE_string("tune", None, "Submit a tuning job of this YAML file, such as configs/tune_imdb.yaml.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print what would be sent, and send nothing.")
FORMAT = flags.DEFINE_enum(
    "format",
    "job",
    ["job", "gcloud"],
    "What --dry_run prints: the job as it is sent, or the file of gcloud's --config, and the command.",
)
FOLLOW = flags.DEFINE_bool(
    "follow", False, "Print the job's log until it ends. The exit code is 1 if it failed, 75 if it was stopped."
)
FOLLOW_JOB = flags.DEFINE_string("follow_job", None, "Follow the job of this name, and submit nothing.")
FOLLOW_INTERVAL_S = flags.DEFINE_float(
    "look_every", 10, "The seconds between two polls of --follow and --follow_job.", lower_bound=0.1
)
SERVE = flags.DEFINE_bool("serve", False, "Deploy an export to an endpoint. See docs/serving.md.")
MODEL = flags.DEFINE_string("model", None, "The export to deploy. Default: BASE_OUTPUT_DIRECTORY/model.")
ENDPOINT = flags.DEFINE_string("endpoint", "", "The id of an existing endpoint. Default: a new one.")
MAX_REPLICAS = flags.DEFINE_integer(
    "max_replicas", None, "The maximum number of machines. Default: that of --replicas."
)

# The fields of JobOptions. --config, --set and the configuration's keys are those of trainer.task.
flags.adopt_module_key_flags(config_flags)
PROJECT = flags.DEFINE_string("project", None, "The id of the Google Cloud project that runs the job and pays for it.")
flags.DEFINE_string("region", None, "The region of the job, such as us-central1.")
flags.DEFINE_string(
    "bucket",
    None,
    "A bucket in that region. It completes paths that are not given: --data_dir is gs://BUCKET/data/PRESET, and an "
    "--encoder that is a name stands for gs://BUCKET/encoders/NAME.",
)
flags.DEFINE_string(
    "name",
    None,
    "The name of the run. A job with the name of an earlier one resumes it; a study needs a new one. Default: the "
    "preset, or else hubtune, and the time.",
)
flags.DEFINE_string("base_output_directory", None, "The folder of the run. Default: gs://BUCKET/runs/NAME.")
flags.DEFINE_string(
    "machine",
    None,
    "A machine type of Vertex AI, or a short name: cpu, gpu, gpus (two of them), workers (two machines with a GPU "
    f"each), tpu_v2, tpu_v3 or tpu_v5e. Default: {job_request.DEFAULT_MACHINE}, or {DEFAULT_SERVING_MACHINE} with "
    "--serve.",
)
flags.DEFINE_string(
    "accelerator", "", "The GPUs of an n1 machine, such as NVIDIA_TESLA_T4, or NVIDIA_TESLA_T4:2 for two."
)
flags.DEFINE_string("tpu_topology", "", "The topology of a TPU v5e. Default: that of a single host.")
flags.DEFINE_integer(
    "replicas", None, "The number of such machines. The first is the chief. Default: that of the short name, or 1."
)
flags.DEFINE_string("image", None, "The container image. Default: the one in REGION-docker.pkg.dev/PROJECT/hubtune.")
flags.DEFINE_bool("spot", False, "Use spot machines, which cost less, and which the service may take away.")
flags.DEFINE_bool("restarts", True, "Restart all machines after one had to restart. The run resumes.")
flags.DEFINE_float("timeout_hours", 168, "The time limit of the job, in hours.", 0.1, 8760)
flags.DEFINE_string("service_account", "", "The service account of the job. Default: Vertex AI's own.")
flags.DEFINE_string("network", "", "The network to peer with, projects/NUMBER/global/networks/NAME.")
flags.DEFINE_list("labels", [], "The labels of the job, each key=value.")
HEADINGS = {
    TARGET.name: "The submission",
    SERVE.name: "With --serve",
    PROJECT.name: "Project, paths and machines",
    **config_flags.HEADINGS,
}


def read_options() -> JobOptions:
    """The values of the flags that have the names of its fields, and of those that have the configuration's keys."""
    options = JobOptions(**{field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(JobOptions)})
    others = {key: value for key, value in config_flags.explicit_values().items() if not hasattr(options, key)}
    return dataclasses.replace(options, set=[*options.set, *(f"{key}={value}" for key, value in others.items())])


def submit(options: JobOptions) -> int:
    if TARGET.value == "vertex":
        request = build_request(options, machine_types.SHORT_NAMES)
        study = tuning_spec.read_study(TUNE.value) if TUNE.value else None
        interval_s = FOLLOW_INTERVAL_S.value if FOLLOW.value else None
        print_format = FORMAT.value if DRY_RUN.value else None
        return submission.submit_to_vertex(request, study, print_format=print_format, follow_interval_s=interval_s)
    _LOG.warning("%s", ai_platform.DEPRECATION)
    given = [f"--{name}" for name in VERTEX_FLAGS if flags.FLAGS[name].present]
    if given:
        names = ", ".join(given)
        raise UsageError(Problem(names, "be left out with --target=ai_platform", names, "Use --target=vertex."))
    request = build_request(options, ai_platform.SHORT_NAMES)
    return submission.submit_to_ai_platform(request, dry_run=DRY_RUN.value, stream_logs=FOLLOW.value)


def build_request(options: JobOptions, short_names: machine_types.MachineNames) -> job_request.JobRequest:
    variables = {name: os.environ.get(name, "") for name in job_request.PASSED_VARIABLES}
    request = job_request.build_job_request(options, trainer.__version__, short_names, variables)
    for default in request.defaults:
        _LOG.info("default: %s", default)
    return request


def serve(options: JobOptions) -> int:
    base = options.base_output_directory
    if not base and options.bucket and options.name:
        base = f"gs://{options.bucket.removeprefix('gs://').rstrip('/')}/runs/{options.name}"
    model = MODEL.value or (f"{base}/model" if base else "")
    machine, replicas = machine_types.resolve_machine(
        options.machine or DEFAULT_SERVING_MACHINE, options.accelerator, replicas=options.replicas
    )
    requests = endpoints.build_requests(
        project=options.project,
        region=options.region,
        name=options.name or "hubtune",
        model=model,
        machine=machine,
        replicas=replicas,
        max_replicas=MAX_REPLICAS.value,
        image=options.image,
        endpoint=ENDPOINT.value,
        service_account=options.service_account,
    )
    return submission.serve(requests, model, str(options.region), dry_run=DRY_RUN.value)


def main(argv: list[str]) -> int:
    problems = app.find_argument_problems(argv)
    local_or_bucket = ("config", "tune", "data_dir", "init_from", "encoders.mirror", "base_output_directory", "model")
    problems += app.normalize_path_flags(*local_or_bucket, urls=("encoder", "preprocess"))
    if FORMAT.present and (SERVE.value or not DRY_RUN.value):
        problems.append(Problem("--format", "come with --dry_run of a job", FORMAT.value))
    if problems:
        raise UsageError(*problems)
    versions.check_installation()
    if FOLLOW_JOB.value:
        name = vertex_client.parse_job_name(FOLLOW_JOB.value)
        google_api.check_installed()
        return job_logs.follow_job(name, FOLLOW_INTERVAL_S.value)
    options = read_options()
    return serve(options) if SERVE.value else submit(options)


if __name__ == "__main__":
    app.run(main, __doc__, HEADINGS)
