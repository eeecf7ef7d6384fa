"""A flag for each key of the configuration, such as --optimizer.learning_rate, and --config and --set.

Importing this module defines them. A command shows them in its --help with absl.flags.adopt_module_key_flags.
"""

import typing
from collections.abc import Sequence
from typing import Any, Literal

from absl import flags

from trainer.config import loading, schema
from trainer.errors import Problem, UsageError
from trainer.runtime import help_text
from trainer.storage import fs, preflight
from trainer.storage.preflight import PathUse

SECTION_TITLES = {
    "": "The job",
    "data": "Batches of data",
    "training": "Length, checkpoints and evaluation",
    "optimizer": "Optimizer",
    "model": "Model",
    "encoders": "Where encoders come from",
    "logging": "Logging",
}


def _allowed_values(hint: Any) -> tuple[str, ...]:
    """The values of a type that are few: ("head", "tail") for Literal["head", "tail"] | None."""
    if hint is bool:
        return ("true", "false")
    parts = typing.get_args(hint)
    return parts if typing.get_origin(hint) is Literal else next(filter(None, map(_allowed_values, parts)), ())


CONFIG = flags.DEFINE_string("config", None, "A YAML file of settings, such as those in configs/.")
SET = flags.DEFINE_multi_string(
    "set",
    [],
    "A setting, as section.key=value. --section.key=value is the same, and wins over --set.",
)
KEYS = {
    key: flags.DEFINE_string(
        key, None, help_text.describe_values(schema.DESCRIPTIONS[key], default, _allowed_values(schema.TYPES[key]))
    )
    for key, default in schema.DEFAULTS.items()
}
# For help_text: the first flag of each group.
HEADINGS = {CONFIG.name: "Several settings at once"} | {
    next(key for key in KEYS if key.rpartition(".")[0] == section): title for section, title in SECTION_TITLES.items()
}


def explicit_values() -> dict[str, str]:
    """Key -> value of the keys whose flags were given."""
    return {key: flag.value for key, flag in KEYS.items() if flag.value is not None}


def given_settings(problems: list[Problem]) -> dict[str, str]:
    """Key -> value of --set and of the keys' flags, which win. Adds to `problems` what --set does not take."""
    return {**loading.parse_overrides(SET.value, problems), **explicit_values()}


def run_settings(problems: list[Problem]) -> dict[str, str]:
    """given_settings and --config by its name, which loading.load_run_config refuses as all that a run has."""
    preset = {CONFIG.name: CONFIG.value} if CONFIG.value else {}
    return {**preset, **given_settings(problems)}


def load_run_to_export(model_dir: str, output: str, problems: Sequence[Problem] = ()) -> schema.Config:
    """loading.load_run_config of a command that writes the new folder `output`.

    Raises UsageError with `problems`, those that were found before, and with those of all paths and flags.
    """
    uses = [PathUse("--model_dir", model_dir), PathUse("--output", output, writes=True)]
    problems = [*problems, *preflight.find_path_problems(uses)]
    settings = run_settings(problems)
    faulty = {problem.setting for problem in problems}
    if "--output" not in faulty and fs.exists(output):
        problems.append(Problem("--output", "name a new folder", f"{output}, which exists"))
    if "--model_dir" not in faulty:
        try:
            config = loading.load_run_config(model_dir, settings)
            paths = schema.get_values(config, [key for key in schema.PATH_KEYS if key != "init_from"])
            problems += preflight.find_path_problems([PathUse(f"--{key}", path) for key, path in paths.items()])
        except UsageError as error:
            problems.extend(error.problems)
    if problems:
        raise UsageError(*problems)
    return config
