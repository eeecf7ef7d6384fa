"""The entry point of a job: parse, build, run, close.

python -m trainer.task --data_dir=data/mine --model_dir=runs/mine [--config=configs/X.yaml] [--set section.key=value]...
    --section.key=value is the same as --set section.key=value
python -m trainer.task --mode=evaluate --model_dir=runs/mine [--split=test] [--baseline]
python -m trainer.task --mode=export --model_dir=runs/mine
python -m trainer.task --mode=inspect_batches --steps=K ...    the example ids of the next K global batches
"""

import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

STARTED = time.monotonic()

from absl import flags  # noqa: E402

from trainer import errors  # noqa: E402
from trainer.distributed import tpu_probe  # noqa: E402
from trainer.errors import EXIT_STOPPED, UsageError  # noqa: E402
from trainer.runtime import app, versions, vertex_env  # noqa: E402
from trainer.storage import compute_engine, preflight  # noqa: E402
from trainer.storage.preflight import PathUse  # noqa: E402

if TYPE_CHECKING:  # what imports TensorFlow is imported where it is used, so that --help answers at once
    from trainer.config.schema import Config
    from trainer.distributed.strategies import DeviceRequest
    from trainer.train.run_files import RunFiles
    from trainer.train.runs import Run

CONFIG = flags.DEFINE_string("config", None, "a YAML preset, see configs/")
SET = flags.DEFINE_multi_string("set", [], "section.key=value: overrides the preset; again for each key")
MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "evaluate", "export", "inspect_batches"],
    "what to do; evaluate and export need model_dir alone",
)
STRATEGY = flags.DEFINE_string("strategy", "auto", "auto, cpu, one_device, mirrored, multi_worker or tpu")
VIRTUAL_DEVICES = flags.DEFINE_integer(
    "virtual_devices",
    None,
    "split the CPU into so many devices, so that --strategy=mirrored runs so many replicas on it",
)
TPU = flags.DEFINE_string("tpu", None, "`local`, or a TPU's name or grpc:// address; not set: the variable TPU_NAME")
CLUSTER_TIMEOUT = flags.DEFINE_float(
    "cluster_timeout", 240, "multi_worker: seconds to wait at the start for the workers of TF_CONFIG or CLUSTER_SPEC"
)
DATA_DIR = flags.DEFINE_string("data_dir", None, "the prepared data set")
MODEL_DIR = flags.DEFINE_string(
    "model_dir", None, "where the run keeps everything; not given: the folder above AIP_MODEL_DIR"
)
flags.DEFINE_alias("job-dir", "model_dir")
ENCODER = flags.DEFINE_string("encoder", None, "a name, a Hub handle or a folder")
TASK = flags.DEFINE_string("task", None, "refused if the data set's is another")
STEPS = flags.DEFINE_integer("steps", 1, "inspect_batches: how many batches")
SPLIT = flags.DEFINE_enum("split", "test", ["train", "validation", "test"], "evaluate: on which split")
BASELINE = flags.DEFINE_bool("baseline", False, "evaluate: a bag-of-words model on the same split beside it")
PREDICTIONS = flags.DEFINE_string(
    "predictions", None, "evaluate: write every example's id, label and scores to this JSONL file"
)


def files() -> "RunFiles":
    from trainer.train import run_files

    return run_files.resolve_run_files(MODEL_DIR.value, vertex_env.service_folders(os.environ))


def read_config() -> "Config":
    """The flags' configuration; for evaluate and export, that of the model_dir, with the paths that flags change."""
    from trainer.config import loading, schema
    from trainer.storage import fs

    given = {"data_dir": DATA_DIR.value, "encoder": ENCODER.value, "task": TASK.value}
    path = CONFIG.value
    if MODE.value in ("evaluate", "export"):
        path = fs.join(MODEL_DIR.value, schema.CONFIG_FILE)
        if not fs.exists(path):
            raise UsageError(f"--model_dir must hold a run. Received: {MODEL_DIR.value}, which has no config.yaml.")
        if CONFIG.value or SET.value:
            raise UsageError(
                f"--mode={MODE.value} takes the configuration of --model_dir. Received: --config or --set beside it."
            )
    config = loading.load_config(path, SET.value, given)
    data_dir, encoder, preprocess = map(vertex_env.mount_to_gcs, (config.data_dir, config.encoder, config.preprocess))
    return dataclasses.replace(config, data_dir=data_dir, encoder=encoder, preprocess=preprocess)


def machine() -> "DeviceRequest":
    """What the flags and the environment say of this machine and of others; every error in it at once."""
    from trainer.distributed import rendezvous, strategies

    alone = MODE.value != "train" or STRATEGY.value not in ("auto", "multi_worker")
    found: list[errors.Problem | str] = []
    workers = None
    try:
        workers = None if alone else rendezvous.read_cluster(os.environ)
    except UsageError as error:
        found.extend(error.problems)
    there = strategies.DeviceRequest(VIRTUAL_DEVICES.value, tpu_probe.requested_tpu(TPU.value), workers)
    found += strategies.find_flag_problems(STRATEGY.value, there, MODEL_DIR.value)
    if MODE.value != "train" and STRATEGY.value == "multi_worker":
        found.append(f"--mode={MODE.value} runs on one machine. Received: --strategy=multi_worker. Take another.")
    if STRATEGY.value == "tpu" or (STRATEGY.value == "auto" and there.tpu):
        missing = strategies.find_missing_tpu(there)  # before a bucket is touched
        found += [missing] if missing else []
    if found:
        raise UsageError(*found)
    return there


def train(config: "Config") -> int:
    from trainer.distributed import rendezvous
    from trainer.storage import fs
    from trainer.train import builder, report, run_files

    there, paths = machine(), files()
    chief = not there.cluster or there.cluster.index == 0
    with fs.exclusive_lock(MODEL_DIR.value) if chief else contextlib.nullcontext():
        result = run_files.read_finished_result(config, paths)
        if result is not None:
            print(f"{MODEL_DIR.value} holds this run, finished: nothing to do.", file=sys.stderr)
            if chief:
                run_files.report_finished_run(paths, result)
        else:
            if there.cluster and len(there.cluster.addresses) > 1:
                rendezvous.wait_for_workers(there.cluster, builder.job_signature(config), CLUSTER_TIMEOUT.value)
            result = run_to_the_end(config, there)
        if chief:
            print(report.format_summary(result, MODEL_DIR.value, paths.export, paths.tensorboard))
    return errors.EXIT_DONE


def run_to_the_end(config: "Config", there: "DeviceRequest") -> dict[str, Any]:
    """Train, evaluate and export. Raises signals.Stopped after a signal, or if another worker is gone."""
    from trainer.distributed import strategies
    from trainer.runtime import signals
    from trainer.train import builder, checkpoints, loop, run_files, runs

    chosen = strategies.build_strategy(STRATEGY.value, there)
    print(f"strategy: {chosen.description}", file=sys.stderr)
    _, workers = strategies.worker_index_and_count(chosen.strategy)
    try:
        job = builder.build_job(config, chosen.strategy)
        run_files.write_run_identity(job, files())
        run = runs.open_run(job, files(), STARTED)
        with signals.watch_signals() as request, checkpoints.background_saves_finished(run.checkpoints):
            return loop.train_and_evaluate(run, request)
    except strategies.WORKER_LOST_ERRORS as error:
        if workers == 1:
            raise
        raise signals.Stopped(
            f"stopped: another worker is gone ({str(error).splitlines()[0][:200]}). Run the same command again on "
            "every worker to go on from the newest checkpoint."
        ) from None


def restored(config: "Config") -> "Run":
    """The run of model_dir with its best weights."""
    from trainer.distributed import strategies
    from trainer.train import builder, checkpoints, runs

    chosen = strategies.build_strategy(STRATEGY.value, machine())
    run = runs.open_run(builder.build_job(config, chosen.strategy), files(), STARTED)
    if checkpoints.restore_newest(run.bests) is None:
        raise ValueError(
            f"--model_dir must hold a run that has evaluated. Received: {MODEL_DIR.value}, which has no best "
            "checkpoint yet."
        )
    return run


def evaluate(config: "Config") -> int:
    from trainer.evals import baseline, metrics
    from trainer.runtime import signals
    from trainer.storage import fs
    from trainer.train import report, runs

    run = restored(config)
    columns = runs.read_split(run, SPLIT.value)
    with signals.watch_signals() as request:
        predictions = runs.predict_split(run, columns, SPLIT.value, request)
    rows = [(f"{run.job.encoder.name}", metrics.compute_metrics(predictions, run.job.manifest.kind))]
    if PREDICTIONS.value:
        fs.write_text(
            PREDICTIONS.value, "".join(json.dumps(row) + "\n" for row in metrics.prediction_rows(predictions))
        )
    if BASELINE.value:
        train, test = (runs.read_split(run, split, with_text=True) for split in ("train", SPLIT.value))
        rows.append(
            (
                baseline.BASELINE_NAME,
                metrics.compute_metrics(
                    baseline.predict_baseline(train, test, run.job.manifest), run.job.manifest.kind
                ),
            )
        )
    print(f"{SPLIT.value} of {config.data_dir}")
    print(report.format_table(rows))
    return errors.EXIT_DONE


def write_export(config: "Config") -> int:
    from trainer.runtime import signals
    from trainer.storage import fs
    from trainer.train import runs

    with fs.exclusive_lock(MODEL_DIR.value), signals.watch_signals() as request:
        difference = runs.export_run(restored(config), request)
    print(f"{files().export} written; its scores are within {difference:.1e} of the job's")
    return errors.EXIT_DONE


def inspect_batches(config: "Config") -> int:
    """Prints {"step", "ids"} for the next K global batches, from model_dir's newest checkpoint on."""
    from trainer.data import batching
    from trainer.train import builder, checkpoints

    manifest = builder.read_job_manifest(config)
    builder.check_data(config, manifest)
    plan = builder.plan_steps(config, manifest.splits["train"].examples)
    listed = checkpoints.list_steps(files().checkpoints) if MODEL_DIR.value else []
    first = listed[-1] if listed else 0
    batches = batching.train_batches(
        config.data_dir, manifest, builder.shuffle_order(config), config.data.batch_size, first, plan.examples
    )
    for step, batch in zip(range(first + 1, first + 1 + STEPS.value), batches, strict=False):
        print(json.dumps({"step": step, "ids": batch.ids}))
    return errors.EXIT_DONE


def look_at_buckets(uses: Sequence[PathUse]) -> list[errors.Problem]:
    return preflight.find_path_problems(uses, compute_engine.find_region()) if preflight.in_buckets(uses) else []


def checked_config() -> "Config":
    """The configuration, and a look at every bucket that the run is to use.

    Raises UsageError with everything that is wrong with the one and the others.
    """
    writes = MODE.value in ("train", "export")
    outside = vertex_env.folders_outside(MODEL_DIR.value, os.environ) if writes else {}
    uses = [
        PathUse("--config", CONFIG.value),
        PathUse("--model_dir", MODEL_DIR.value, writes),
        *(PathUse(variable, folder, writes=True) for variable, folder in outside.items()),
        PathUse("--predictions", PREDICTIONS.value, writes=True),
        PathUse("--data_dir", DATA_DIR.value),
        PathUse("--encoder", ENCODER.value),
    ]
    found: list[errors.Problem | str] = [*look_at_buckets(uses)]
    config = None
    read_from = "--model_dir" if MODE.value in ("evaluate", "export") else "--config"
    if read_from not in [problem.setting for problem in found if isinstance(problem, errors.Problem)]:
        try:
            config = read_config()
        except UsageError as error:
            found.extend(error.problems)
    if config:
        checked = {use.flag for use in uses if use.path}
        configured = {"--data_dir": config.data_dir, "--encoder": config.encoder, "preprocess": config.preprocess}
        found += look_at_buckets([PathUse(flag, path) for flag, path in configured.items() if flag not in checked])
    if found or not config:
        raise UsageError(*found)
    return config


def main(argv: list[str]) -> int:
    app.reject_positional_arguments(argv)
    versions.check_installation()
    for flag in (CONFIG, DATA_DIR, ENCODER, PREDICTIONS):
        flags.FLAGS[flag.name].value = vertex_env.mount_to_gcs(flag.value) if flag.value else None
    flags.FLAGS[MODEL_DIR.name].value = vertex_env.resolve_model_dir(MODEL_DIR.value, os.environ)
    if not MODEL_DIR.value and MODE.value != "inspect_batches":
        raise UsageError("--model_dir must name the run's folder. Received: none.")
    tpu = tpu_probe.requested_tpu(TPU.value)
    if tpu and STRATEGY.value in ("auto", "tpu"):
        tpu_probe.set_tpu_environment(tpu)
    config = checked_config()
    from trainer.runtime import signals

    mode = {"train": train, "evaluate": evaluate, "export": write_export, "inspect_batches": inspect_batches}[
        MODE.value
    ]
    try:
        return mode(config)
    except signals.Stopped as stopped:
        print(stopped, file=sys.stderr)
        return EXIT_STOPPED


if __name__ == "__main__":
    sys.argv[1:] = vertex_env.settings(sys.argv[1:])
    app.run(main, __doc__)
