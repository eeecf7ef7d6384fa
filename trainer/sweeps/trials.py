"""The trials of a sweep: settings of its space with a configuration that is valid, and a name of their own."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from trainer.config import loading, schema
from trainer.config.schema import Config
from trainer.errors import Problem, UsageError, UserError
from trainer.storage import fs
from trainer.sweeps.space import Space

# Of a name, before the digest that tells two of them apart.
NAME_CHARACTERS = 40
# What would make the trials' metrics those of different things.
_NO_PARAMETERS = {
    "seed": "be no parameter: every trial has the seeds of --seeds",
    "training.best_metric": "be no parameter: trials are compared by it",
    "data.positive_class": "be no parameter: metrics of different classes are not comparable",
    "data_dir": "be no parameter: metrics on different data are not comparable",
    "task": "be no parameter: metrics on different data are not comparable",
}

Load = Callable[[Mapping[str, str]], Config]  # Key -> value, as flags have it, on top of the user's own.


@dataclasses.dataclass(frozen=True)
class Trial:
    name: str
    settings: Mapping[str, Any]  # By key of the configuration, with its types.
    config: Config  # Of the trial, with any seed.


@dataclasses.dataclass(frozen=True)
class TrialRun:
    """A trial with a seed, in its model_dir."""

    trial: Trial
    seed: int
    model_dir: str

    @property
    def name(self) -> str:
        return f"{self.trial.name}-seed-{self.seed}"

    @property
    def flags(self) -> list[str]:
        """The flags of trainer.task that make this run of the user's own command."""
        settings = (f"--{key}={value}" for key, value in flag_values(self.trial.settings).items())
        return [*settings, f"--seed={self.seed}"]


def plan_runs(trials: Iterable[Trial], seeds: Sequence[int], output: str) -> list[TrialRun]:
    """The runs of all trials, those of a trial one after another."""
    return [
        TrialRun(trial, seed, fs.join(output, "runs", trial.name, f"seed_{seed}")) for trial in trials for seed in seeds
    ]


def flag_values(settings: Mapping[str, Any]) -> dict[str, str]:
    """{"model.dropout": None} -> {"model.dropout": "none"}: the settings as flags have them."""
    return {key: loading.format_value(value) for key, value in settings.items()}


def build_trials(space: Space, drawn: Iterable[Mapping[str, Any]], load: Load) -> list[Trial]:
    """The trials of the drawn settings. Equal settings are one trial.

    Raises UsageError with every problem of every trial.
    """
    problems = [Problem(f"{key} in --space", _NO_PARAMETERS[key], "one") for key in space.keys if key in _NO_PARAMETERS]
    trials: dict[str, Trial] = {}
    for settings in drawn:
        try:
            config = load(flag_values(settings))
        except UsageError as error:
            problems += error.problems
            continue
        values = dict(schema.flatten(dataclasses.asdict(config)))
        trial = _name_trial({key: values[key] for key in settings}, config)
        trials.setdefault(trial.name, trial)
    problems += _find_halving_problems(space, trials.values())
    if problems:
        raise UsageError(*problems)
    return list(trials.values())


def _name_trial(settings: dict[str, Any], config: Config) -> Trial:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    words = "-".join(f"{key.rpartition('.')[2]}-{value}" for key, value in flag_values(settings).items())
    readable = re.sub(r"[^a-z0-9]+", "-", words.lower())[:NAME_CHARACTERS].strip("-")
    return Trial(f"{readable}-{digest}", settings, config)


def _find_halving_problems(space: Space, trials: Iterable[Trial]) -> Iterator[Problem]:
    """Trials are compared where they are evaluated. An evaluation more would be another run."""
    if not space.halving:
        return
    for every in sorted({trial.config.training.eval_every or 0 for trial in trials}):
        if not every or space.halving.first_steps % every:
            required = f"be set with halving, to a divisor of first_steps ({space.halving.first_steps})"
            yield Problem("training.eval_every", required, str(every or "unset"))


def find_data_problems(trials: Iterable[Trial]) -> list[Problem]:
    """What of the trials' configurations does not suit their data set. Loads TensorFlow."""
    from trainer.train import builder

    problems: list[Problem] = []
    for trial in trials:
        try:
            manifest = builder.read_job_manifest(trial.config)
            loading.check_replicas(trial.config, 1, manifest.splits["train"].examples)
        except UserError as error:
            problems += error.problems
            continue
        problems += builder.find_label_problems(trial.config, manifest)
    return problems


def describe_base(config: Config, keys: Iterable[str], *, with_content: bool) -> dict[str, Any]:
    """What is the same for all trials, by name: the settings that are no `keys` of the space.

    With `with_content`, data set and encoder count by their content, as for a run; this loads TensorFlow.
    """
    if with_content:
        from trainer.train import builder

        found = {**builder.job_signature(config), "init_from": config.init_from}
    else:
        found = {**schema.fingerprinted(config), "data_dir": config.data_dir, "encoder": config.encoder}
    left_out = {"seed", *keys, *(["the encoder"] if "encoder" in keys else [])}
    return {key: value for key, value in found.items() if key not in left_out}


def find_base_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between the base that sweep.json keeps and another, as "key: old in the sweep, new here"."""
    both = before.keys() & now.keys()  # What only one has was in every space so far, or is in the other's space.
    return [f"{key}: {before[key]} in the sweep, {now[key]} here" for key in sorted(both) if before[key] != now[key]]
