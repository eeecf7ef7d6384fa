"""Train a job with the settings of a space and several seeds, and rank them by validation.

Examples:
  python scripts/sweep.py --space=configs/sweep_quickstart.yaml --config=configs/quickstart.yaml \\
      --data_dir=data/movie_snippets --output=sweeps/quickstart --seeds=0,1,2
  python scripts/sweep.py --space=configs/sweep_quickstart.yaml --config=configs/quickstart.yaml \\
      --data_dir=gs://B/data/movie_snippets --output=gs://B/sweeps/quickstart \\
      --submit='--project=P --region=R --bucket=B'

The same command again continues: finished runs are not trained again, failed ones are tried again. With --submit, each
run is submitted with scripts/submit.py, and the same command again collects the results. --output gets sweep.json,
sweep.png, tensorboard/ (the HParams tab), and runs/TRIAL/seed_N, the model_dir of each run. The exit code is 1 if a run
failed, 75 after a signal. docs/sweeps.md describes the file of a space.
"""

import os
import shlex
from collections.abc import Mapping

from absl import flags

from trainer.config import flags as config_flags
from trainer.config import loading
from trainer.config.schema import URL_KEYS, Config
from trainer.data import manifests, tasks
from trainer.errors import EXIT_DONE, EXIT_FAILED, Problem, UsageError
from trainer.runtime import app, signals, versions
from trainer.storage import preflight
from trainer.storage.preflight import PathUse
from trainer.sweeps import running, space, summary, trials

SPACE = flags.DEFINE_string(
    "space", None, "A YAML file of the settings to try. docs/sweeps.md describes it.", required=True
)
OUTPUT = flags.DEFINE_string(
    "output", None, "The folder of the sweep. With --submit, it is in a bucket.", required=True
)
SEEDS = flags.DEFINE_list("seeds", ["0"], "The seeds that every trial is trained with.")
PARALLEL = flags.DEFINE_integer("parallel", 1, "The number of runs that are trained at the same time.", lower_bound=1)
GPUS = flags.DEFINE_list(
    "gpus",
    [],
    "The GPUs of the runs that are trained at the same time, one each, as CUDA_VISIBLE_DEVICES names them: 0,1,2,3.",
)
STRATEGY = flags.DEFINE_string("strategy", "auto", "The devices of a run, as trainer.task takes them.")
TIMEOUT_HOURS = flags.DEFINE_float(
    "timeout_hours", 168, "The hours after which a run is stopped, and has failed.", 0.001
)
SUBMIT = flags.DEFINE_string(
    "submit", None, "Submit the runs, with these flags of scripts/submit.py: '--project=P --region=R --bucket=B'."
)
SUBMIT_AGAIN = flags.DEFINE_bool("submit_again", False, "Submit runs without a result again, such as failed ones.")
flags.adopt_module_key_flags(config_flags)

SUBMIT_SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "submit.py")


def load(values: Mapping[str, str]) -> Config:
    """The configuration of the flags, with these values on top."""
    return loading.load_config(
        config_flags.CONFIG.value, config_flags.SET.value, {**config_flags.explicit_values(), **values}
    )


def read_seeds(problems: list[Problem]) -> list[int]:
    if not SEEDS.value or not all(seed.strip().isdecimal() for seed in SEEDS.value):
        problems.append(Problem("--seeds", "be integers from 0 on, such as 0,1,2", ",".join(SEEDS.value) or "none"))
        return []
    return list(dict.fromkeys(map(int, SEEDS.value)))


def find_flag_problems(keys: tuple[str, ...]) -> list[Problem]:
    """What does not fit together. `keys` are those of the space."""
    problems = []
    given = {*config_flags.explicit_values(), *(each.partition("=")[0].strip() for each in config_flags.SET.value)}
    for key in sorted(given & {*keys, "seed"}):
        required = "be left out: --seeds has the seeds" if key == "seed" else "be left out: the space has it"
        problems.append(Problem(f"--{key}", required, "one"))
    in_bucket = OUTPUT.value.startswith("gs://")
    if in_bucket != (SUBMIT.value is not None):
        required = "be a local folder, or in a bucket with --submit" if in_bucket else "be in a bucket with --submit"
        problems.append(Problem("--output", required, OUTPUT.value))
    if GPUS.value and SUBMIT.value is not None:
        problems.append(Problem("--gpus", "be left out with --submit", ",".join(GPUS.value)))
    return problems


def make_plan() -> running.SweepPlan:
    """The plan that the flags describe. Raises UsageError with every problem, before anything is trained."""
    problems = app.normalize_path_flags(
        "space", "output", "config", "data_dir", "init_from", "encoders.mirror", urls=URL_KEYS
    )
    seeds = read_seeds(problems)
    found = space.read_space(SPACE.value)
    problems += find_flag_problems(found.keys)
    if SUBMIT.value is not None and found.halving:
        advice = "The service's own search stops trials early: scripts/submit.py --tune=configs/tune_imdb.yaml."
        problems.append(Problem(f"halving in --space={SPACE.value}", "be left out with --submit", "one", advice))
    problems += preflight.find_path_problems([PathUse("--output", OUTPUT.value, writes=True)])
    if problems:
        raise UsageError(*problems)
    planned = trials.build_trials(found, space.draw_settings(found), load)
    config = planned[0].config
    metric: str = config.training.best_metric or ""
    if SUBMIT.value is None:
        if problems := trials.find_data_problems(planned):
            raise UsageError(*problems)
        metric = metric or tasks.MAIN_METRIC[manifests.read_manifest(config.data_dir).kind]
    elif not metric:
        raise UsageError(Problem("--training.best_metric", "be set with --submit: trials are ranked by it", "none"))
    base = trials.describe_base(config, found.keys, with_content=SUBMIT.value is None)
    return running.SweepPlan(OUTPUT.value, planned, seeds, found, metric, base, configuration_flags())


def configuration_flags() -> list[str]:
    """The user's own flags of the configuration, for another command."""
    given = [f"--{key}={value}" for key, value in config_flags.explicit_values().items()]
    preset = [f"--config={config_flags.CONFIG.value}"] if config_flags.CONFIG.value else []
    return [*preset, *(f"--set={each}" for each in config_flags.SET.value), *given]


def main(argv: list[str]) -> int:
    app.reject_arguments(argv)
    versions.check_installation()
    plan = make_plan()
    with running.hold_sweep(plan) as before, signals.watch_signals() as request:
        if SUBMIT.value is None:
            variables = [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in GPUS.value] or [{}]
            slots = [variables[index % len(variables)] for index in range(max(PARALLEL.value, len(GPUS.value)))]
            timeout_s = TIMEOUT_HOURS.value * 3600
            sweep = running.run_sweep(plan, before, request, strategy=STRATEGY.value, slots=slots, timeout_s=timeout_s)
        else:
            submit_flags = shlex.split(SUBMIT.value)
            dry_run = "--dry_run" in submit_flags

            def submit(run: trials.TrialRun) -> str:
                signals.raise_if_requested(request, request.reason is not None)
                printed = running.submit_run(plan, run, SUBMIT_SCRIPT, submit_flags)
                print(f"---\n{printed}" if dry_run else printed, flush=True)  # Documents of YAML.
                return printed

            sweep = running.submit_sweep(plan, before, submit, again=SUBMIT_AGAIN.value, keep=not dry_run)
    print(summary.format_sweep(sweep, plan.output))
    return EXIT_FAILED if sweep.errors else EXIT_DONE


if __name__ == "__main__":
    app.run(main, __doc__, {SPACE.name: "The sweep", **config_flags.HEADINGS})
