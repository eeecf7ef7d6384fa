"""From what a command or a call of trainer.api asks for to the session that a mode works on.

TensorFlow is imported when all that can be known without it has been checked.
"""

import contextlib
import dataclasses
import gc
import numbers
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainer.config import loading, schema
from trainer.config.schema import PATH_KEYS, URL_KEYS, Config
from trainer.data import manifests
from trainer.distributed import cluster_config, device_flags, rendezvous, tpu_probe
from trainer.errors import Problem, UsageError, UserError
from trainer.runtime import versions, vertex_env
from trainer.storage import compute_engine, paths, preflight
from trainer.storage.preflight import PathUse

if TYPE_CHECKING:
    from trainer.distributed.strategies import DeviceRequest
    from trainer.train.run_files import RunFiles

# The modes that work on a run with its own configuration, and those that write to its folder.
OF_RUN, _WRITING = ("evaluate", "report", "export"), ("train", "report", "export")


@dataclasses.dataclass(frozen=True)
class Command:
    """The command line that makes a call. Its process ends with it, and at once after a second signal."""

    started: float  # time.monotonic() at the start of the process.
    problems: Sequence[Problem] = ()  # Of its arguments. They are reported with those of the call.


@dataclasses.dataclass(frozen=True)
class SessionRequest:
    """What a run is to do and on which devices, as it was given."""

    mode: str  # A value of --mode.
    model_dir: str  # Empty: the folder that a service names.
    settings: Mapping[str, Any]  # Key -> value. Sections may be mappings of their own.
    config: str = ""  # A YAML preset.
    predictions: str = ""  # A file that is written.
    strategy: str = "auto"
    virtual_devices: int | None = None
    tpu: str | None = None
    cluster_timeout_s: float = 240.0
    command: Command | None = None  # None: a call of trainer.api.
    problems: Sequence[Problem] = ()  # That were found before.


@dataclasses.dataclass(frozen=True)
class Session:
    """What a mode works on."""

    config: Config
    files: "RunFiles"
    strategy: str  # A key of strategies.STRATEGIES.
    devices: "DeviceRequest"
    started: float  # time.monotonic() at the start of the process, or of a call of trainer.api.
    predictions: str = ""  # The JSONL file that `evaluate` writes.
    of_command: bool = True  # Whether the process is that of a command, which a second signal ends at once.


def open_on_cpu(config: Config, model_dir: str, started: float) -> Session:
    """A session on the run in `model_dir` that leaves an accelerator, which may be training, alone."""
    from trainer.distributed import strategies
    from trainer.train import run_files

    return Session(config, run_files.resolve_run_files(model_dir), "cpu", strategies.DeviceRequest(), started)


def open_session(request: SessionRequest) -> Session:
    """The session, with every path, setting and device checked. Raises UsageError with every problem."""
    started = request.command.started if request.command else time.monotonic()
    if "tensorflow" in sys.modules:
        gc.collect()  # The variables of an earlier call, whose models are in cycles.
    versions.check_installation()
    problems = [*(request.command.problems if request.command else ()), *request.problems]
    problems += device_flags.find_value_problems(request.strategy, request.virtual_devices)
    request = _normalize(request, problems)
    model_dir = vertex_env.resolve_model_dir(request.model_dir or None, os.environ)
    tpu = tpu_probe.requested_tpu(request.tpu)
    if tpu and request.strategy in ("auto", "tpu"):
        if problem := tpu_probe.find_import_problem(tpu):
            problems.append(problem)
        else:
            tpu_probe.set_tpu_environment(tpu)
    try:
        config = _read_config(request, model_dir, problems)
    except UsageError as error:  # Such as a disk that is not mounted on this worker.
        _tell_workers(request, error)
        raise

    from trainer.distributed import strategies
    from trainer.train import run_files

    files = run_files.resolve_run_files(model_dir or "", vertex_env.service_folders(os.environ))
    devices = strategies.DeviceRequest()
    if request.mode != "inspect_batches":  # It starts no device.
        devices = strategies.request_devices(
            request.strategy, request.virtual_devices, tpu, os.environ, trains=request.mode == "train"
        )
    return Session(
        config,
        files,
        request.strategy,
        devices,
        started,
        predictions=request.predictions,
        of_command=request.command is not None,
    )


def _plain(value: Any) -> Any:
    """A number of NumPy as one of Python, a path as text; any other value as it is."""
    if isinstance(value, numbers.Number) and hasattr(value, "item"):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _normalize(request: SessionRequest, problems: list[Problem]) -> SessionRequest:
    """The request with one level of keys, and with paths as paths.normalize_path has them and gs:// for a mount."""

    def normalize(name: str, path: str) -> str:
        return vertex_env.mount_to_gcs(paths.normalize_path(f"--{name}", path, problems, url=name in URL_KEYS))

    settings = {key: _plain(value) for key, value in schema.flatten(request.settings)}
    for key in PATH_KEYS:
        if isinstance(settings.get(key), str):
            settings[key] = normalize(key, settings[key])
    return dataclasses.replace(
        request,
        settings=settings,
        model_dir=normalize("model_dir", request.model_dir),
        config=normalize("config", request.config),
        predictions=normalize("predictions", request.predictions),
    )


def _read_config(request: SessionRequest, model_dir: str | None, problems: list[Problem]) -> Config:
    """The configuration. Raises UsageError with `problems` and with those of the configuration and of all buckets."""
    of_run, writes = request.mode in OF_RUN, request.mode in _WRITING
    settings = request.settings
    outside = vertex_env.folders_outside(model_dir, os.environ) if writes else {}
    source = PathUse("--model_dir", model_dir, writes) if of_run else PathUse("--config", request.config)
    used = {key: path for key in PATH_KEYS if isinstance(path := settings.get(key), str)}
    problems = [*problems, *preflight.find_path_problems([source], compute_engine.find_region)]
    if not model_dir and request.mode != "inspect_batches":
        problems.append(Problem("--model_dir", "name the run's folder", "none"))
    if source.flag not in {problem.setting for problem in problems} and (source.path or not of_run):
        try:
            if of_run:
                config = loading.load_run_config(model_dir or "", settings)
            else:
                config = loading.load_config(request.config or None, (), settings)
            found = schema.get_values(config, PATH_KEYS)
            used = {key: vertex_env.mount_to_gcs(path) for key, path in found.items()}
            config = schema.replace_values(config, used)
        except UsageError as error:
            problems += error.problems
    others = [
        *([] if of_run else [PathUse("--model_dir", model_dir, writes)]),
        *(PathUse(variable, folder, writes=True) for variable, folder in outside.items()),
        PathUse("--predictions", request.predictions, writes=True, is_file=True),
        # The parent is read when a run starts, and checked then: a run that resumes does not need it.
        *(PathUse(f"--{key}", path) for key, path in used.items() if key != "init_from"),
    ]
    problems += preflight.find_path_problems(others, compute_engine.find_region)
    if problems:
        raise UsageError(*problems, *_find_data_problems(used.get("data_dir")))
    return config


def _find_data_problems(data_dir: str | None) -> Sequence[Problem]:
    """Those of a local data set's manifest, which is read later if the configuration is right."""
    if data_dir and "://" not in data_dir:
        try:
            manifests.read_manifest(data_dir)
        except UserError as error:
            return error.problems
    return ()


def _tell_workers(request: SessionRequest, error: UsageError) -> None:
    """Tell the other workers, if this is one of several, that it cannot run."""
    if request.mode == "train" and request.strategy in ("auto", "multi_worker"):
        with contextlib.suppress(UsageError):  # A variable that cannot be read: its problem is not the first one.
            cluster = cluster_config.read_cluster(os.environ)
            rendezvous.tell_problem(cluster, error, request.cluster_timeout_s)
