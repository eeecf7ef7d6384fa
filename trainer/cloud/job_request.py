"""A training job with every value resolved, from the flags of scripts/submit.py."""

import dataclasses
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from types import MappingProxyType

from trainer.cloud import machine_types
from trainer.cloud.machine_types import SHORT_NAMES, Machine, MachineNames
from trainer.config import loading, schema
from trainer.config.schema import Config
from trainer.encoders import handles, registry
from trainer.errors import Problem, UsageError, advise_nearest
from trainer.storage import bucket_errors, retries

DEFAULT_MACHINE = "gpu"  # Its one L4 fine-tunes any of the tutorials' encoders.
IMAGES = {"cpu": "hubtune", "gpu": "hubtune-gpu", "tpu": "hubtune-tpu"}
IMAGE_REPOSITORY = "hubtune"
PASSED_VARIABLES = (bucket_errors.PAYING_PROJECT_VARIABLE, retries.RETRY_VARIABLE)

_PATH_IN_BUCKET = re.compile(r"gs://[a-z0-9][a-z0-9._-]*(/|$)")
_WITHOUT_BUCKET = "gs:///"  # How a default path in --bucket begins if that flag was not given.


@dataclasses.dataclass(frozen=True)
class JobOptions:
    """The flags of scripts/submit.py that describe a job, by their names. None and "" are derived or left out."""

    project: str | None = None
    region: str | None = None
    bucket: str | None = None
    name: str | None = None
    config: str | None = None
    set: Sequence[str] = ()
    data_dir: str | None = None
    encoder: str | None = None
    base_output_directory: str | None = None
    machine: str | None = None
    accelerator: str = ""
    tpu_topology: str = ""
    replicas: int | None = None
    image: str | None = None
    spot: bool = False
    restarts: bool = True
    timeout_hours: float = 168
    service_account: str = ""
    network: str = ""
    labels: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class JobRequest:
    """A training job, as job_spec and ai_platform describe it to a service."""

    name: str
    project: str
    region: str
    config: Config  # Its paths are ones that a machine in the cloud reaches.
    machine: Machine
    replicas: int  # The number of machines.
    image: str
    base_output_directory: str
    labels: Mapping[str, str]
    spot: bool
    restarts: bool
    timeout_s: float
    service_account: str
    network: str
    variables: Mapping[str, str]  # The submitter's PASSED_VARIABLES, which the job gets too. Without those not set.
    defaults: Sequence[str]  # The flags that were not given, with the values that they have got.

    @property
    def strategy(self) -> str:
        return machine_types.choose_strategy(self.machine, self.replicas)

    @property
    def devices(self) -> int:
        return self.machine.devices * self.replicas


def build_job_request(
    options: JobOptions,
    version: str,
    short_names: MachineNames = SHORT_NAMES,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> JobRequest:
    """Resolve what was not given. `version`: the default image's. `short_names`: what --machine may abbreviate.

    `variables`: PASSED_VARIABLES, "" where one is not set.

    Raises UsageError with everything that is wrong with any of the options.
    """
    preset = PurePath(options.config or "").stem
    now = time.strftime("%Y%m%d_%H%M%S", time.gmtime())
    name = options.name or f"{re.sub('[^A-Za-z0-9_]', '_', preset) or 'hubtune'}_{now}"
    bucket = (options.bucket or "").removeprefix("gs://").rstrip("/")
    labels = {key: value for key, _, value in (label.partition("=") for label in options.labels)}
    problems: list[Problem] = [
        *find_location_problems(options.project, options.region),
        *_find_name_problems(name, bucket, labels),
    ]
    defaults = []
    machine, replicas = machine_types.resolve_machine(
        options.machine or DEFAULT_MACHINE, options.accelerator, options.tpu_topology, options.replicas, short_names
    )
    machine_problems = machine_types.find_machine_problems(machine, replicas, short_names)
    problems += machine_problems
    if not options.machine:
        defaults.append(f"--machine={DEFAULT_MACHINE} ({machine.machine_type})")
    config = _load_config(options, None if machine_problems else machine.devices * replicas, problems)
    config = _resolve_paths(config, preset, bucket, defaults, problems)
    base = options.base_output_directory or f"gs://{bucket}/runs/{name}"
    if not options.base_output_directory:
        defaults.append(f"--base_output_directory={base}")
    problems += _find_bucket_problems(bucket, base, config)
    if problems:
        raise UsageError(*problems)
    project, region = str(options.project), str(options.region)
    return JobRequest(
        name=name,
        project=project,
        region=region,
        config=config,
        machine=machine,
        replicas=replicas,
        image=options.image or default_image(project, region, machine, version),
        base_output_directory=base.rstrip("/"),
        labels=labels,
        spot=options.spot,
        restarts=options.restarts,
        timeout_s=options.timeout_hours * 3600,
        service_account=options.service_account,
        network=options.network,
        variables={name: value for name, value in variables.items() if value},
        defaults=defaults,
    )


def _find_bucket_problems(bucket: str, base: str, config: Config) -> list[Problem]:
    """What is wrong with the bucket of the paths that were not given, and with the folder that the job writes to."""
    if not bucket and any(path.startswith(_WITHOUT_BUCKET) for path in (base, config.data_dir, config.encoder)):
        advice = "Or give all of --base_output_directory, --data_dir and --encoder."
        return [Problem("--bucket", "be given", "none", advice)]
    if not _PATH_IN_BUCKET.match(base):
        return [Problem("--base_output_directory", "be gs://BUCKET/NAME", base)]
    return []


def find_location_problems(project: str | None, region: str | None) -> list[Problem]:
    """What is wrong with where a job or an endpoint is to be."""
    problems = [] if project else [Problem("--project", "be a project's id", "none")]
    if not re.fullmatch(r"[a-z]+-[a-z]+[0-9]+", region or ""):
        problems.append(Problem("--region", "be a region of Vertex AI, such as us-central1", region or "none"))
    return problems


def image_repository(project: str, region: str) -> str:
    """The address of the repository of images, which docs/cloud.md makes."""
    return f"{region}-docker.pkg.dev/{project.replace(':', '/')}/{IMAGE_REPOSITORY}"


def default_image(project: str, region: str, machine: Machine, version: str) -> str:
    """The image that cloudbuild.yaml pushes for this kind of machine."""
    kind = "tpu" if machine.has_tpu else "gpu" if machine.accelerator_count else "cpu"
    return f"{image_repository(project, region)}/{IMAGES[kind]}:{version}"


def _find_name_problems(name: str, bucket: str, labels: Mapping[str, str]) -> list[Problem]:
    problems = []
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", name):
        problems.append(Problem("--name", "be at most 128 letters, digits, '_', '.' and '-'", name))
    if bucket and not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", bucket):
        problems.append(Problem("--bucket", "be a bucket's name, or gs://NAME", bucket))
    for key, value in labels.items():
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", key) or not re.fullmatch(r"[a-z0-9_-]{0,63}", value):
            required = "be key=value,..., each at most 63 lower-case letters, digits, '_' and '-'"
            problems.append(Problem("--labels", required, f"{key}={value}"))
    return problems


def _load_config(options: JobOptions, devices: int | None, problems: list[Problem]) -> Config:
    """The job's configuration. Its problems are added to `problems`; with any, only its paths are as given."""
    given = {"data_dir": options.data_dir, "encoder": options.encoder}
    paths = {key: path for key, path in given.items() if path is not None}
    try:
        # A progress bar would fill the job's log. --set can still turn it on.
        config = loading.load_config(options.config, ["logging.progress=off", *options.set], paths)
        if devices is not None:
            loading.check_replicas(config, devices)
        return config
    except UsageError as error:
        problems.extend(error.problems)
        return Config(data_dir=options.data_dir or "", encoder=options.encoder or Config.encoder)


def _resolve_paths(config: Config, preset: str, bucket: str, defaults: list[str], problems: list[Problem]) -> Config:
    """The configuration with paths that a machine in the cloud reaches. Adds to `defaults` and to `problems`."""
    data_dir, encoder = config.data_dir, config.encoder
    if not data_dir and preset:
        data_dir = f"gs://{bucket}/data/{preset}"
        defaults.append(f"--data_dir={data_dir}")
    if not data_dir.startswith(_WITHOUT_BUCKET) and not _PATH_IN_BUCKET.match(data_dir):
        required = "be gs://..., where scripts/prepare_data.py --output=gs://... wrote the data set"
        problems.append(Problem("--data_dir", required, data_dir or "none"))
    if "/" not in encoder and encoder not in registry.ENCODERS:
        defaults.append(f"--encoder=gs://{bucket}/encoders/{encoder}, a copy of encoders/{encoder}")
        encoder = f"gs://{bucket}/encoders/{encoder}"
    elif encoder not in registry.ENCODERS and not _is_reachable(encoder, "--encoder", problems):
        required = "be gs://..., a Hub or Kaggle handle or name, or the name of a folder in gs://BUCKET/encoders"
        problems.append(Problem("--encoder", required, encoder, advise_nearest(encoder, registry.ENCODERS)))
    if config.preprocess and not _is_reachable(config.preprocess, "preprocess", problems):
        advice = "Change it with --set=preprocess=..."
        problems.append(Problem("preprocess", "be gs://... or a handle", config.preprocess, advice))
    for key, path in schema.get_values(config, ("init_from", "encoders.mirror")).items():
        if path and not _PATH_IN_BUCKET.match(path):
            problems.append(Problem(f"--{key}", "be gs://BUCKET/NAME", path))
    return dataclasses.replace(config, data_dir=data_dir, encoder=encoder)


def _is_reachable(path: str, flag: str, problems: list[Problem]) -> bool:
    """Whether a path is in a bucket, or a handle. A handle with a defect adds its own problem."""
    try:
        return bool(_PATH_IN_BUCKET.match(path)) or handles.parse_handle(path, flag) is not None
    except UsageError as error:
        problems.extend(error.problems)
        return True
