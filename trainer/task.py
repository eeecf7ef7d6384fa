"""Fine-tune a pretrained encoder on a prepared data set, or evaluate, report or export the run.

Examples:
  python -m trainer.task --data_dir=data/mine --model_dir=runs/mine
  python -m trainer.task --config=configs/smoke.yaml --training.epochs=2 \\
      --data_dir=data/mine --model_dir=runs/mine
  python -m trainer.task --mode=evaluate --model_dir=runs/mine --split=validation --baseline
  python -m trainer.task --mode=report --model_dir=runs/mine --cross_check
  python -m trainer.task --mode=export --model_dir=runs/mine
  python -m trainer.task --mode=inspect_batches --steps=3 --data_dir=data/mine

A run that was stopped continues with the same command. The exit code is 0 for success, 1 for a failure, 2 for wrong
flags or settings, and 75 for a stop.
"""

import json
import time
from typing import Any

STARTED = time.monotonic()

from absl import flags  # noqa: E402

from trainer import api  # noqa: E402
from trainer.config import flags as config_flags  # noqa: E402
from trainer.errors import EXIT_DONE  # noqa: E402
from trainer.runtime import app  # noqa: E402
from trainer.train import sessions  # noqa: E402

MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "evaluate", "report", "export", "inspect_batches"],
    "What to do: train a run; evaluate, report or export the one in --model_dir; or print the example ids of the next "
    "batches.",
)
MODEL_DIR = flags.DEFINE_string(
    "model_dir", None, "The folder in which the run keeps everything. Default: the folder above AIP_MODEL_DIR."
)
flags.DEFINE_alias("job-dir", "model_dir")
flags.FLAGS["job-dir"].help = "The same as --model_dir, as AI Platform names it. Default: that of --model_dir."
STRATEGY = flags.DEFINE_string(
    "strategy",
    "auto",
    "The devices to run on. Allowed values: auto, cpu, one_device, mirrored, multi_worker, tpu.",
)
VIRTUAL_DEVICES = flags.DEFINE_integer(
    "virtual_devices", None, "Split the CPU into this many devices, so that --strategy=mirrored has as many replicas."
)
TPU = flags.DEFINE_string(
    "tpu", None, "The TPU: local, its name, or its hosts' grpc:// addresses. Default: the variable TPU_NAME."
)
CLUSTER_TIMEOUT = flags.DEFINE_float(
    "cluster_timeout",
    240,
    "The seconds that --strategy=multi_worker waits at the start for the workers of TF_CONFIG or CLUSTER_SPEC.",
)
STOP_AT_STEP = flags.DEFINE_integer(
    "stop_at_step",
    None,
    "End with a checkpoint and exit code 75 after this step and what is due at it. The learning rates are those of the "
    "complete run, which the command without this flag continues. scripts/sweep.py uses it.",
    lower_bound=1,
)
PROFILE = flags.DEFINE_string(
    "profile", None, "Write a TensorBoard profile of some steps: 20:30 is of those after step 20, to step 30."
)
SPLIT = flags.DEFINE_enum("split", "test", ["train", "validation", "test"], "The split to evaluate.")
BASELINE = flags.DEFINE_bool("baseline", False, "Also evaluate a bag-of-words model on the same split.")
PREDICTIONS = flags.DEFINE_string(
    "predictions", None, "A JSONL file to write every example's id, label, class names and scores to."
)
CROSS_CHECK = flags.DEFINE_bool(
    "cross_check", False, "Look for wrong labels in train too, with a bag of words in five folds."
)
STEPS = flags.DEFINE_integer("steps", 1, "The number of batches to print.")
flags.adopt_module_key_flags(config_flags)
HEADINGS = {
    MODE.name: "The run",
    STRATEGY.name: "Devices",
    STOP_AT_STEP.name: "With --mode=train",
    SPLIT.name: "With --mode=evaluate",
    CROSS_CHECK.name: "With --mode=report",
    STEPS.name: "With --mode=inspect_batches",
    **config_flags.HEADINGS,
}


def train(**given: Any) -> None:
    config = config_flags.CONFIG.value
    result = api.train(None, config=config, stop_at_step=STOP_AT_STEP.value, profile=PROFILE.value, **given)
    if result:
        print(result, flush=True)
        from trainer.train import run_files

        # Last, since it may fail: the run is complete, but its study cannot use a trial without a metric, and the exit
        # code says so.
        run_files.report_trial_metric(result.model_dir, result.values)


def inspect_batches(**given: Any) -> None:
    request = sessions.SessionRequest(MODE.value, config=config_flags.CONFIG.value or "", **given)
    session = sessions.open_session(request)
    from trainer.train import modes

    folder = session.files.checkpoints if session.files.root else None
    for line in modes.inspect_batches(session.config, folder, STEPS.value):
        print(json.dumps(line))


def main(argv: list[str]) -> int:
    problems = app.find_argument_problems(argv)
    of_run = MODE.value in sessions.OF_RUN
    given: dict[str, Any] = {
        "model_dir": MODEL_DIR.value or "",
        "settings": (config_flags.run_settings if of_run else config_flags.given_settings)(problems),
        "strategy": STRATEGY.value,
        "virtual_devices": VIRTUAL_DEVICES.value,
        "tpu": TPU.value,
        "cluster_timeout_s": CLUSTER_TIMEOUT.value,
        "command": api.Command(STARTED, problems),
    }
    if MODE.value == "train":
        train(**given)
    elif MODE.value == "inspect_batches":
        inspect_batches(**given)
    elif MODE.value == "evaluate":
        print(api.evaluate(split=SPLIT.value, baseline=BASELINE.value, predictions=PREDICTIONS.value, **given))
    elif MODE.value == "report":
        print("\n".join(f"{path} written" for path in api.report(cross_check=CROSS_CHECK.value, **given)))
    else:
        exported = api.export(**given)
        print(f"{exported.folder} written; its scores are within {exported.difference:.1e} of the job's")
    return EXIT_DONE


if __name__ == "__main__":
    app.run(main, __doc__, HEADINGS)
