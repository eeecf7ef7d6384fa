"""A flag for each key of the configuration, such as --optimizer.learning_rate, and --config and --set.

Importing this module defines them. A command shows them in its --help with absl.flags.adopt_module_key_flags.
"""

from collections.abc import Sequence

from absl import flags

from trainer.config import loading, schema
from trainer.errors import Problem, UsageError
from trainer.storage import fs, preflight
from trainer.storage.preflight import PathUse

CONFIG = flags.DEFINE_string("config", None, "A YAML preset, such as those in configs/.")
SET = flags.DEFINE_multi_string(
    "set",
    [],
    "section.key=value, the same as --section.key, which wins over it. May be given more than once.",
)

KEYS = {
    key: flags.DEFINE_string(
        key, None, f"{schema.DESCRIPTIONS[key]} Default: {'none' if default in ('', None) else default}."
    )
    for key, default in schema.DEFAULTS.items()
}


def explicit_values() -> dict[str, str]:
    """Key -> value of the keys whose flags were given."""
    return {key: flag.value for key, flag in KEYS.items() if flag.value is not None}


def load_config(preset: str) -> schema.Config:
    """The configuration that the flags give on top of a preset, "" for none. Raises UsageError."""
    return loading.load_config(preset or None, SET.value, explicit_values())


def load_run_config(model_dir: str) -> schema.Config:
    """The configuration of the run in `model_dir`, with the paths that flags give in place of its own.

    Raises UsageError for any other flag of the configuration, and if there is no run.
    """
    path = fs.join(model_dir, schema.CONFIG_FILE)
    paths = {
        key: value
        for key, value in explicit_values().items()
        if key in ("task", *schema.PATH_KEYS) and key != "init_from"
    }
    others = {key: value for key, value in explicit_values().items() if key not in paths}
    others |= {flag.name: flag.value for flag in (CONFIG, SET) if flag.value}
    required = "be left out where the configuration is that of the run in --model_dir"
    if others:
        raise UsageError(*(Problem(f"--{name}", required, str(value)) for name, value in others.items()))
    if not fs.exists(path):
        raise UsageError(Problem("--model_dir", "hold a run", f"{model_dir}, which has no {schema.CONFIG_FILE}"))
    return loading.load_config(path, (), paths)


def load_run_to_export(model_dir: str, output: str, problems: Sequence[Problem] = ()) -> schema.Config:
    """load_run_config of a command that writes the new folder `output`.

    Raises UsageError with `problems`, those that were found before, and with those of all paths and flags.
    """
    uses = [PathUse("--model_dir", model_dir), PathUse("--output", output, writes=True)]
    problems = [*problems, *preflight.find_path_problems(uses)]
    faulty = {problem.setting for problem in problems}
    if "--output" not in faulty and fs.exists(output):
        problems.append(Problem("--output", "name a new folder", f"{output}, which exists"))
    if "--model_dir" not in faulty:
        try:
            config = load_run_config(model_dir)
            paths = schema.get_values(config, [key for key in schema.PATH_KEYS if key != "init_from"])
            problems += preflight.find_path_problems([PathUse(f"--{key}", path) for key, path in paths.items()])
        except UsageError as error:
            problems.extend(error.problems)
    if problems:
        raise UsageError(*problems)
    return config
