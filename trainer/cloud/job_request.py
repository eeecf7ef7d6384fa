"""What submit.py's flags ask for, with nothing left to default: a configuration as the cloud sees it, and machines."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

from trainer.cloud import ai_platform, machine_check
from trainer.cloud.machine_types import SHORT, Host
from trainer.config import loading
from trainer.config.schema import Config
from trainer.encoders import registry
from trainer.errors import UsageError

MACHINE = "gpu"  # whose one L4 fine-tunes any of the tutorials' encoders
# The images, by what they are for.
IMAGES = {"cpu": "hubtune", "gpu": "hubtune-gpu", "tpu": "hubtune-tpu"}
IN_A_BUCKET = re.compile(r"gs://[a-z0-9][a-z0-9._-]*(/|$)")
NOWHERE = "gs:///"  # where a default would be in --bucket, and none is given


@dataclasses.dataclass(frozen=True)
class Order:
    name: str
    project: str
    region: str
    config: Config  # its paths are the cloud's
    host: Host
    replicas: int  # hosts
    image: str
    base_output_directory: str
    labels: Mapping[str, str]
    notes: Sequence[str]  # what was not asked for, and is assumed

    @property
    def strategy(self) -> str:
        return machine_check.strategy(self.host, self.replicas)


def take(
    *,
    target: str,
    config: str | None,
    overrides: Sequence[str],
    project: str | None,
    region: str | None,
    bucket: str | None,
    name: str,
    data_dir: str | None,
    encoder: str | None,
    base_output_directory: str | None,
    machine: str | None,
    accelerator: str,
    tpu_topology: str,
    replicas: int | None,
    image: str | None,
    labels: Sequence[str],
    version: str,
) -> Order:
    """Raises UsageError with everything that is wrong with any of it.

    `target`: vertex or ai_platform. `config`: the preset's file; `version`: of the default images.
    """
    found, notes = [], []
    for flag, value in (("project", project), ("region", region)):
        if not value:
            found.append(f"--{flag} must be given. Received: none.")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", name):
        found.append(f"--name must be letters, digits, '_', '.' and '-', 128 at most. Received: {name}.")
    bucket = (bucket or "").removeprefix("gs://").rstrip("/")
    if bucket and not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", bucket):
        found.append(f"--bucket must be a bucket's name, or gs://NAME. Received: {bucket}.")
        bucket = "BUCKET"

    host, count = machine_check.chosen(
        machine or MACHINE,
        accelerator,
        tpu_topology,
        replicas,
        ai_platform.SHORT if target == "ai_platform" else SHORT,
    )
    if not machine:
        notes.append(f"--machine={MACHINE} ({host.type}), since none was given.")
    wrong = machine_check.check(host, count, region) if region else []
    wrong += ai_platform.check(name, host) if target == "ai_platform" else []
    found += wrong
    if wrong and target == "ai_platform":
        found.append(ai_platform.ENDED)

    base = base_output_directory or f"gs://{bucket}/runs/{name}"
    try:
        # A progress bar would fill the log; one can be asked for all the same.
        read = loading.load_config(
            config, ["logging.progress=off", *overrides], {"data_dir": data_dir, "encoder": encoder}
        )
        if not wrong:
            loading.check_replicas(read, host.devices * count)
    except UsageError as error:
        found.append(str(error))
        read = Config(data_dir=data_dir or "", encoder=encoder or Config.encoder)
    preset = re.sub(r"\.ya?ml$", "", config.rsplit("/", 1)[-1]) if config else ""
    read, assumed, problems = in_the_cloud(read, preset, bucket)
    notes += assumed
    found += problems
    if not base_output_directory:
        notes.append(f"--base_output_directory={base}.")
    if not bucket and any(path.startswith(NOWHERE) for path in (base, read.data_dir, read.encoder)):
        found.append("--bucket must be given, or --base_output_directory, --data_dir and --encoder. Received: none.")
    elif not IN_A_BUCKET.match(base):
        found.append(f"--base_output_directory must be gs://BUCKET/NAME. Received: {base}.")
    pairs = {key: value for key, _, value in (label.partition("=") for label in labels)}
    for key, value in pairs.items():
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", key) or not re.fullmatch(r"[a-z0-9_-]{0,63}", value):
            found.append(
                "--labels must be key=value,..., of lower-case letters, digits, '_' and '-', 63 at most each. "
                f"Received: {key}={value}."
            )
    if found:
        raise UsageError("\n".join(found))
    kind = "tpu" if host.tpu else "gpu" if host.count else "cpu"
    repository = f"{region}-docker.pkg.dev/{str(project).replace(':', '/')}/hubtune"
    return Order(
        name=name,
        project=str(project),
        region=str(region),
        config=read,
        host=host,
        replicas=count,
        image=image or f"{repository}/{IMAGES[kind]}:{version}",
        base_output_directory=base.rstrip("/"),
        labels=pairs,
        notes=notes,
    )


def in_the_cloud(config: Config, preset: str, bucket: str) -> tuple[Config, list[str], list[str]]:
    """The configuration with paths that a machine elsewhere reaches; what was assumed; what is wrong."""
    notes, found = [], []
    data_dir, encoder = config.data_dir, config.encoder
    if not data_dir and preset:
        data_dir = f"gs://{bucket}/data/{preset}"
        notes.append(f"--data_dir={data_dir}.")
    if not data_dir.startswith(NOWHERE) and not IN_A_BUCKET.match(data_dir):
        found.append(
            "--data_dir must be gs://..., where scripts/prepare_data.py --output=gs://... wrote it. Received: "
            f"{data_dir or 'none'}."
        )
    if IN_A_BUCKET.match(encoder) or encoder.startswith(("https://", "http://")) or encoder in registry.ENCODERS:
        pass
    elif "/" not in encoder:
        encoder = f"gs://{bucket}/encoders/{encoder}"
        notes.append(f"--encoder={encoder}, a copy of encoders/{config.encoder}.")
    else:
        near = machine_check.nearest(encoder, registry.ENCODERS, "")
        found.append(
            "--encoder must be gs://..., a Hub or Kaggle URL or name, or the name of a folder in gs://BUCKET/encoders. "
            f"Received: {encoder}{near}."
        )
    reached = IN_A_BUCKET.match(config.preprocess) or config.preprocess.startswith(("https://", "http://"))
    if config.preprocess and not reached:
        found.append(f"preprocess must be gs://... or a URL. Received: {config.preprocess}. Change it with --set.")
    return dataclasses.replace(config, data_dir=data_dir, encoder=encoder), notes, found
