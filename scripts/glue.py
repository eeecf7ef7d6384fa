"""Run the GLUE benchmark: train its tasks with several seeds, print their scores on dev, and write the submission.

Example:
  python scripts/glue.py --glue_dir=glue_data --output=runs/glue --tasks=cola,rte --seeds=0,1,2

The same command again continues where it was stopped. --glue_dir holds GLUE's archives, which you download yourself, or
their folders. Each task is prepared into OUTPUT/data, each run is in OUTPUT/runs/TASK/seed_N, and
OUTPUT/submission.zip has the predictions of the seed that is best on validation. docs/glue.md has the details.
"""

import os

from absl import flags

from trainer.config import loading
from trainer.data import tasks
from trainer.errors import Problem, UsageError
from trainer.glue import benchmark, dev_table, runs, suite
from trainer.glue.runs import SuiteOptions
from trainer.runtime import app, versions
from trainer.storage import fs, preflight
from trainer.storage.preflight import PathUse

GLUE_DIR = flags.DEFINE_string("glue_dir", None, "The folder with a folder or a .zip for each task.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "The folder for data sets, runs and results.", required=True)
TASKS = flags.DEFINE_list("tasks", list(suite.SUITE), "The tasks to run, one after another.")
SEEDS = flags.DEFINE_list("seeds", ["0"], "The seeds of each task's runs.")
ENCODER = flags.DEFINE_string("encoder", "minilm", "The encoder: a name, a Hub or Kaggle handle, or a folder.")
PREPROCESS = flags.DEFINE_string("preprocess", "", "The encoder's preprocessor, if the encoder does not come with one.")
CONFIG = flags.DEFINE_string("config", "configs/glue.yaml", "The preset of all runs.")
STRATEGY = flags.DEFINE_string("strategy", "auto", "The devices to run on, as for trainer.task.")
SET = flags.DEFINE_multi_string("set", [], "A setting of all runs, as section.key=value, such as training.epochs=4.")

# What this command decides for each run.
OWN_KEYS = ("task", "seed", "encoder", "preprocess", "data_dir", "init_from")
PREPARE_SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "prepare_data.py")


def check_flags() -> None:
    """Raises UsageError with everything that is wrong with the flags, and with the settings that they give the runs."""
    problems = app.normalize_path_flags("glue_dir", "output", "config", urls=("encoder", "preprocess"))
    names = [name for name in TASKS.value if name in suite.SUITE and name != tasks.AX]
    problems += suite.find_task_problems(TASKS.value)
    if not SEEDS.value or len(set(SEEDS.value)) < len(SEEDS.value) or not all(map(str.isdecimal, SEEDS.value)):
        problems.append(Problem("--seeds", "be different numbers from 0", ",".join(SEEDS.value) or "none"))
    keys = {each.partition("=")[0].strip() for each in SET.value}
    problems += [Problem(f"--set {key}", "be left to this command's flags", key) for key in OWN_KEYS if key in keys]
    for name in names or ["mnli"]:
        try:
            loading.load_config(CONFIG.value, runs.task_overrides(name, SET.value))
        except UsageError as error:
            problems += error.problems
    uses = [PathUse(f"--{flag.name}", flag.value) for flag in (GLUE_DIR, ENCODER, PREPROCESS, CONFIG)]
    preflight.check_paths([*uses, PathUse("--output", OUTPUT.value, writes=True)], problems=problems)


def main(argv: list[str]) -> None:
    app.reject_arguments(argv)
    versions.check_installation()
    check_flags()
    options = SuiteOptions(
        glue_dir=fs.local_copy(GLUE_DIR.value),
        output=OUTPUT.value,
        encoder=ENCODER.value,
        preprocess=PREPROCESS.value,
        config=CONFIG.value,
        strategy=STRATEGY.value,
        overrides=tuple(SET.value),
    )
    outcome = benchmark.run_benchmark(options, TASKS.value, list(map(int, SEEDS.value)), PREPARE_SCRIPT)
    print(f"\ndev of GLUE with {ENCODER.value}\n{dev_table.format_scores(outcome.scores)}")
    print(f"results    {outcome.results}\nsubmission {outcome.submission}")
    if outcome.missing:
        print(f"note: GLUE's server asks for all files; missing: {', '.join(outcome.missing)}")


if __name__ == "__main__":
    app.run(main, __doc__)
