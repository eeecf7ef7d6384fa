"""Submit a training job to Vertex AI, or print it; or deploy what a job exported.

  python scripts/submit.py --config=configs/imdb_minilm.yaml --project=P --region=us-central1 --bucket=B --dry_run
  the same without --dry_run, with --follow     looks at the buckets, submits, prints the job's log until it ends
  the same with --tune=configs/tune_imdb.yaml   submits or prints a tuning job, whose trials run that job
  python scripts/submit.py --follow_job=projects/P/locations/us-central1/customJobs/ID
  python scripts/submit.py --serve --model=gs://B/runs/NAME/model --project=P --region=us-central1 [--dry_run]

--machine takes a machine type of Vertex AI, or a short name: cpu, gpu, gpus (two of them), workers (two machines with a
GPU each), tpu_v2, tpu_v3, tpu_v5e. --dry_run prints a CustomJob as YAML on standard output, and reaches nothing.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import yaml
from absl import flags

import trainer
from trainer import errors
from trainer.cloud import (
    ai_platform,
    endpoints,
    job_logs,
    job_request,
    job_spec,
    machine_check,
    tuning_spec,
    vertex_client,
)
from trainer.cloud.job_request import Order
from trainer.config import loading
from trainer.errors import UsageError
from trainer.runtime import app, versions
from trainer.storage import fs, gcs, preflight
from trainer.storage.preflight import PathUse

TARGET = flags.DEFINE_enum("target", "vertex", ["vertex", "ai_platform"], "the service; ai_platform ended in 2025")
CONFIG = flags.DEFINE_string("config", None, "a YAML preset, see configs/")
SET = flags.DEFINE_multi_string("set", [], "section.key=value: overrides the preset; again for each key")
TUNE = flags.DEFINE_string("tune", None, "a YAML file of what to tune, see configs/tune_imdb.yaml: submit a tuning job")
PROJECT = flags.DEFINE_string("project", None, "the Google Cloud project that runs the job, and pays")
REGION = flags.DEFINE_string("region", None, "where it runs, such as us-central1")
BUCKET = flags.DEFINE_string("bucket", None, "of that region, for the paths that are not given")
NAME = flags.DEFINE_string(
    "name", None, "of the run; the same again goes on with it, but for --tune; default: the preset and the time"
)
DATA_DIR = flags.DEFINE_string("data_dir", None, "the prepared data set; default: gs://BUCKET/data/PRESET")
ENCODER = flags.DEFINE_string(
    "encoder", None, "gs://..., a Hub handle or name; a folder's name: gs://BUCKET/encoders/NAME"
)
BASE = flags.DEFINE_string("base_output_directory", None, "where the run goes; default: gs://BUCKET/runs/NAME")
MACHINE = flags.DEFINE_string("machine", None, f"a machine type, or a short name; default: {job_request.MACHINE}")
ACCELERATOR = flags.DEFINE_string("accelerator", "", "GPUs of an n1 machine: NVIDIA_TESLA_T4, NVIDIA_TESLA_T4:2, ...")
TOPOLOGY = flags.DEFINE_string("tpu_topology", "", "of a TPU v5e; default: the one host's")
REPLICAS = flags.DEFINE_integer("replicas", None, "how many such machines; the first of them is the chief")
IMAGE = flags.DEFINE_string("image", None, "the container; default: hubtune's of REGION-docker.pkg.dev/PROJECT/hubtune")
SPOT = flags.DEFINE_bool("spot", False, "machines that may be taken away, for less")
RESTARTS = flags.DEFINE_bool("restarts", True, "all machines start again when one had to; the run goes on")
HOURS = flags.DEFINE_float("timeout_hours", 168, "the longest that the job may run", 0.1, 8760)
ACCOUNT = flags.DEFINE_string("service_account", "", "that the job runs as; default: Vertex AI's own")
NETWORK = flags.DEFINE_string("network", "", "peered with: projects/NUMBER/global/networks/NAME")
LABELS = flags.DEFINE_list("labels", [], "key=value,...")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "print the job, and submit nothing")
FOLLOW = flags.DEFINE_bool(
    "follow", False, "print the job's log until it ends; code 1 if it failed, 75 if it was stopped"
)
FOLLOW_JOB = flags.DEFINE_string("follow_job", None, "follow this job, by the name that was printed; submit nothing")
SERVE = flags.DEFINE_bool("serve", False, "deploy an export to an endpoint; see docs/serving.md")
MODEL = flags.DEFINE_string("model", None, "serve: the export; default: BASE_OUTPUT_DIRECTORY/model")
ENDPOINT = flags.DEFINE_string("endpoint", "", "serve: the id of an endpoint that is there; default: a new one")
MAX_REPLICAS = flags.DEFINE_integer("max_replicas", None, "serve: machines under load; default: --replicas")
LOOK_EVERY = flags.DEFINE_float("look_every", 10, "follow: seconds between two looks", lower_bound=0.1)

# Flags that AI Platform had no counterpart for.
VERTEX_ALONE = (IMAGE, SPOT, RESTARTS, HOURS, NETWORK, TOPOLOGY, TUNE)


def read_order() -> Order:
    """The flags' order; its assumptions are said on standard error."""
    preset = re.sub(r"\W", "_", os.path.splitext(os.path.basename(CONFIG.value or "hubtune"))[0])
    order = job_request.take(
        target=TARGET.value,
        config=CONFIG.value,
        overrides=SET.value,
        project=PROJECT.value,
        region=REGION.value,
        bucket=BUCKET.value,
        name=NAME.value or f"{preset}_{time.strftime('%Y%m%d_%H%M%S', time.gmtime())}",
        data_dir=DATA_DIR.value,
        encoder=ENCODER.value,
        base_output_directory=BASE.value,
        machine=MACHINE.value,
        accelerator=ACCELERATOR.value,
        tpu_topology=TOPOLOGY.value,
        replicas=REPLICAS.value,
        image=IMAGE.value,
        labels=LABELS.value,
        version=trainer.__version__,
    )
    for note in order.notes:
        print(f"note: {note}", file=sys.stderr)
    return order


def look(order: Order) -> None:
    """Raises UsageError or ValueError unless the buckets hold what the run needs, and take what it writes."""
    config = order.config
    uses = [
        PathUse("--data_dir", config.data_dir),
        PathUse("--encoder", config.encoder),
        PathUse("--base_output_directory" if BASE.value else "--bucket", order.base_output_directory, writes=True),
    ]
    # Each bucket once, for the last use of it, which writes.
    by_bucket = {gcs.split_path(use.path or "")[0]: use for use in preflight.in_buckets(uses)}
    preflight.check_paths(list(by_bucket.values()), order.region)
    manifest = fs.join(config.data_dir, "dataset.json")
    if not fs.exists(manifest):
        raise UsageError(
            f"--data_dir must hold a data set that scripts/prepare_data.py has written. Received: {config.data_dir}, "
            "which has no dataset.json."
        )
    if config.encoder.startswith("gs://") and not fs.is_folder(config.encoder):
        raise UsageError(
            f"--encoder must be there. Received: {config.encoder}, which is not. Copy it, such as: gcloud storage cp "
            f"--recursive encoders/{os.path.basename(config.encoder)} {os.path.dirname(config.encoder)}/"
        )
    try:
        described = json.loads(fs.read_text(manifest))
        examples, kind = int(described["splits"]["train"]["examples"]), str(described["kind"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{manifest} must be a manifest. Received: one that does not parse: {error!r}.") from None
    loading.check_replicas(config, order.host.devices * order.replicas, examples)
    if TUNE.value:
        tuning_spec.check_metric(tuning_spec.read(TUNE.value), kind)
        if fs.is_folder(fs.join(order.base_output_directory, "1")):
            raise UsageError(
                "--name (or --base_output_directory) must be new with --tune: a study's trials begin at 1. Received: "
                f"{order.base_output_directory}, which has the trials of another."
            )


def to_vertex(order: Order) -> int:
    job = custom_job(order)
    if not TUNE.value:
        return submit(order, job, "customJobs")
    tuned = tuning_spec.job(tuning_spec.read(TUNE.value), job, order.host.devices * order.replicas)
    return submit(order, tuned, "hyperparameterTuningJobs")


def custom_job(order: Order) -> dict[str, Any]:
    return job_spec.custom_job(
        name=order.name,
        host=order.host,
        replicas=order.replicas,
        image=order.image,
        flags=job_spec.task_flags(order.config, order.strategy),
        base_output_directory=order.base_output_directory,
        spot=SPOT.value,
        restarts=RESTARTS.value,
        timeout=HOURS.value * 3600,
        service_account=ACCOUNT.value,
        network=NETWORK.value,
        labels=order.labels,
    )


def submit(order: Order, job: Mapping[str, Any], collection: str) -> int:
    """Print the job, or submit it, to the collection of its kind, once the buckets have been looked at."""
    if DRY_RUN.value:
        print(yaml.safe_dump(job, sort_keys=False, allow_unicode=True, width=1000), end="")
        return errors.EXIT_DONE
    look(order)
    name = vertex_client.submit(job, order.project, order.region, collection)
    print(f"{name.full}\n{name.console}", flush=True)
    return job_logs.follow(name, LOOK_EVERY.value) if FOLLOW.value else errors.EXIT_DONE


def to_ai_platform(order: Order) -> int:
    given = [f"--{flag.name}" for flag in VERTEX_ALONE if flag.present]
    if given:
        raise UsageError(f"{', '.join(given)} must be left out with --target=ai_platform. Take --target=vertex.")
    command = ai_platform.command(
        name=order.name,
        host=order.host,
        replicas=order.replicas,
        flags=job_spec.task_flags(order.config, order.strategy),
        job_dir=order.base_output_directory,
        project=order.project,
        region=order.region,
        service_account=ACCOUNT.value,
        labels=order.labels,
    )
    print(f"note: {ai_platform.ENDED}", file=sys.stderr)
    if DRY_RUN.value:
        print(shlex.join(command))
        return errors.EXIT_DONE
    if not shutil.which(command[0]):
        raise ValueError(
            "--target=ai_platform runs gcloud, which must be on the PATH. Received: none. Install Google Cloud's "
            "command line, print the command with --dry_run, or take --target=vertex, which needs none."
        )
    done = subprocess.run(
        [*command[:6], *(["--stream-logs"] if FOLLOW.value else []), *command[6:]],
        cwd=fs.join(os.path.dirname(__file__), os.pardir),
    )
    return errors.EXIT_FAILED if done.returncode else errors.EXIT_DONE


def serve() -> int:
    base = BASE.value or (f"gs://{BUCKET.value}/runs/{NAME.value}" if BUCKET.value and NAME.value else "")
    model = (MODEL.value or (f"{base.rstrip('/')}/model" if base else "")).rstrip("/")
    host, replicas = machine_check.chosen(MACHINE.value or "n1-standard-4", ACCELERATOR.value, "", REPLICAS.value)
    wanted = endpoints.requests(
        project=PROJECT.value,
        region=REGION.value,
        name=NAME.value or "hubtune",
        model=model,
        machine=job_spec.machine_spec(host),
        image=IMAGE.value,
        endpoint=ENDPOINT.value,
        replicas=(replicas, MAX_REPLICAS.value or replicas),
        service_account=ACCOUNT.value,
    )
    if DRY_RUN.value:
        print(yaml.safe_dump_all(wanted, sort_keys=False, allow_unicode=True, width=1000), end="")
        return errors.EXIT_DONE
    preflight.check_paths([PathUse("--model", model, writes=True)], REGION.value)
    endpoints.check(model)
    for request in wanted:
        endpoints.message(request)  # what is wrong with one, or missing here, is said before anything is written
    endpoints.publish(model)
    endpoint = endpoints.submit(wanted, str(REGION.value))
    print(f"{endpoint}\n{endpoints.predict_command(endpoint, str(REGION.value))}")
    return errors.EXIT_DONE


def main(argv: list[str]) -> int:
    app.reject_positional_arguments(argv)
    versions.check_installation()
    if FOLLOW_JOB.value:
        return job_logs.follow(vertex_client.parsed(FOLLOW_JOB.value), LOOK_EVERY.value)
    if SERVE.value:
        return serve()
    order = read_order()
    return {"vertex": to_vertex, "ai_platform": to_ai_platform}[TARGET.value](order)


if __name__ == "__main__":
    app.run(main, __doc__)
