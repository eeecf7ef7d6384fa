"""The entry point of a job: parse, check, build, run, close.

python -m trainer.task --data_dir=data/mine --model_dir=runs/mine [--config=configs/X.yaml] [--section.key=value]...
python -m trainer.task --mode=evaluate --model_dir=runs/mine [--split=test] [--baseline]
python -m trainer.task --mode=report --model_dir=runs/mine [--cross_check]
python -m trainer.task --mode=export --model_dir=runs/mine
python -m trainer.task --mode=inspect_batches --steps=K ...    the example ids of the next K global batches
"""

import contextlib
import json
import os
import time

STARTED = time.monotonic()

from absl import flags  # noqa: E402

from trainer.config import flags as config_flags  # noqa: E402
from trainer.config import schema  # noqa: E402
from trainer.config.schema import PATH_KEYS, URL_KEYS, Config  # noqa: E402
from trainer.distributed import cluster_config, rendezvous, tpu_probe  # noqa: E402
from trainer.errors import EXIT_DONE, Problem, UsageError  # noqa: E402
from trainer.runtime import app, versions, vertex_env  # noqa: E402
from trainer.storage import compute_engine, fs, preflight  # noqa: E402
from trainer.storage.preflight import PathUse  # noqa: E402

MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "evaluate", "report", "export", "inspect_batches"],
    "What to do with the run in --model_dir.",
)
STRATEGY = flags.DEFINE_string(
    "strategy", "auto", "Devices to run on: auto, cpu, one_device, mirrored, multi_worker or tpu."
)
VIRTUAL_DEVICES = flags.DEFINE_integer(
    "virtual_devices", None, "Splits the CPU into this many devices, so that mirrored runs as many replicas on it."
)
TPU = flags.DEFINE_string(
    "tpu", None, "`local`, a TPU's name, or its hosts' grpc:// addresses. Default: the variable TPU_NAME."
)
CLUSTER_TIMEOUT = flags.DEFINE_float(
    "cluster_timeout", 240, "Seconds that multi_worker waits at the start for the workers of TF_CONFIG or CLUSTER_SPEC."
)
MODEL_DIR = flags.DEFINE_string(
    "model_dir", None, "The folder in which the run keeps everything. Default: the folder above AIP_MODEL_DIR."
)
flags.DEFINE_alias("job-dir", "model_dir")
STEPS = flags.DEFINE_integer("steps", 1, "inspect_batches: the number of batches.")
STOP_AT_STEP = flags.DEFINE_integer(
    "stop_at_step",
    None,
    "train: end with a checkpoint and code 75 after this step and what is due at it. The run has the learning rates of "
    "all its steps, and goes on to its end without this flag. scripts/sweep.py uses it.",
    lower_bound=1,
)
SPLIT = flags.DEFINE_enum("split", "test", ["train", "validation", "test"], "evaluate: the split.")
BASELINE = flags.DEFINE_bool("baseline", False, "evaluate: adds a bag-of-words model on the same split.")
CROSS_CHECK = flags.DEFINE_bool(
    "cross_check", False, "report: looks for wrong labels in train too, with a bag of words in five folds."
)
PREDICTIONS = flags.DEFINE_string(
    "predictions", None, "evaluate: a JSONL file to write every example's id, label, class names and scores to."
)
flags.adopt_module_key_flags(config_flags)


def read_config(model_dir: str | None, predictions: str, problems: list[Problem]) -> Config:
    """The configuration. Raises UsageError with `problems` and with those of the configuration and of all buckets."""
    of_run = MODE.value in ("evaluate", "report", "export")
    writes = MODE.value in ("train", "report", "export")
    outside = vertex_env.folders_outside(model_dir, os.environ) if writes else {}
    preset = vertex_env.mount_to_gcs(config_flags.CONFIG.value or "")
    source = PathUse("--model_dir", model_dir, writes) if of_run else PathUse("--config", preset)
    given = {key: config_flags.KEYS[key].value or "" for key in PATH_KEYS}
    paths = {key: vertex_env.mount_to_gcs(path) for key, path in given.items()}
    problems = [*problems, *preflight.find_path_problems([source], compute_engine.find_region)]
    if not model_dir and MODE.value != "inspect_batches":
        problems.append(Problem("--model_dir", "name the run's folder", "none"))
    if source.flag not in {problem.setting for problem in problems} and (source.path or not of_run):
        try:
            config = config_flags.load_run_config(model_dir or "") if of_run else config_flags.load_config(preset)
            given = schema.get_values(config, PATH_KEYS)
            paths = {key: vertex_env.mount_to_gcs(path) for key, path in given.items()}
            config = schema.replace_values(config, paths)
        except UsageError as error:
            problems.extend(error.problems)
    others = [
        *([] if of_run else [PathUse("--model_dir", model_dir, writes)]),
        *(PathUse(variable, folder, writes=True) for variable, folder in outside.items()),
        PathUse("--predictions", predictions, writes=True, is_file=True),
        # The parent is read when a run starts, and checked then: a run that resumes does not need it.
        *(PathUse(f"--{key}", path) for key, path in paths.items() if key != "init_from"),
    ]
    problems += preflight.find_path_problems(others, compute_engine.find_region)
    if problems:
        raise UsageError(*problems)
    return config


def tell_workers(error: UsageError) -> None:
    """Tell the other workers, if this is one of several, that it cannot run."""
    if MODE.value == "train" and STRATEGY.value in ("auto", "multi_worker"):
        with contextlib.suppress(UsageError):  # A variable that cannot be read: its problem is not the first one.
            rendezvous.tell_problem(cluster_config.read_cluster(os.environ), error, CLUSTER_TIMEOUT.value)


def main(argv: list[str]) -> int:
    versions.check_installation()
    problems = app.find_argument_problems(argv)
    local_or_bucket = [key for key in PATH_KEYS if key not in URL_KEYS]
    problems += app.normalize_path_flags("model_dir", "predictions", "config", *local_or_bucket, urls=URL_KEYS)
    model_dir = vertex_env.resolve_model_dir(MODEL_DIR.value, os.environ)
    predictions = vertex_env.mount_to_gcs(PREDICTIONS.value or "")
    tpu = tpu_probe.requested_tpu(TPU.value)
    if tpu and STRATEGY.value in ("auto", "tpu"):
        tpu_probe.set_tpu_environment(tpu)  # Before TensorFlow is imported.
    try:
        config = read_config(model_dir, predictions, problems)
    except UsageError as error:  # Such as a disk that is not mounted on this worker.
        tell_workers(error)
        raise

    from trainer.distributed import strategies
    from trainer.train import modes, report, run_files

    files = run_files.resolve_run_files(model_dir or "", vertex_env.service_folders(os.environ))
    if MODE.value == "inspect_batches":
        for line in modes.inspect_batches(config, files.checkpoints if model_dir else None, STEPS.value):
            print(json.dumps(line))
        return EXIT_DONE
    devices = strategies.request_devices(
        STRATEGY.value, VIRTUAL_DEVICES.value, tpu, os.environ, trains=MODE.value == "train"
    )
    session = modes.Session(config, files, STRATEGY.value, devices, STARTED)
    if MODE.value == "train":
        if result := modes.train(session, CLUSTER_TIMEOUT.value, STOP_AT_STEP.value):
            page = fs.join(files.root, "report.html")
            page = page if fs.exists(page) else ""
            print(report.format_summary(result, files.root, files.export, files.tensorboard, page), flush=True)
            # Last, since it may fail: the run is complete, but its study cannot use a trial without a metric, and the
            # exit code says so.
            run_files.report_trial_metric(files, result)
    elif MODE.value == "evaluate":
        evaluation = modes.evaluate(session, SPLIT.value, BASELINE.value, predictions)
        print(f"{SPLIT.value} of {config.data_dir}\n{report.format_evaluation(evaluation.rows, evaluation.classes)}")
    elif MODE.value == "report":
        print("\n".join(f"{path} written" for path in modes.report(session, CROSS_CHECK.value)))
    else:
        print(f"{files.export} written; its scores are within {modes.export(session):.1e} of the job's")
    return EXIT_DONE


if __name__ == "__main__":
    app.run(main, __doc__)
