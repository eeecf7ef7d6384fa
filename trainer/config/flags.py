"""A flag for each key of the configuration, such as --optimizer.learning_rate, and --config and --set.

Importing this module defines them. A command shows them in its --help with absl.flags.adopt_module_key_flags.
"""

from absl import flags

from trainer.config import loading, schema
from trainer.errors import Problem, UsageError
from trainer.storage import fs

CONFIG = flags.DEFINE_string("config", None, "A YAML preset, such as those in configs/.")
SET = flags.DEFINE_multi_string("set", [], "The same as --section.key=value. May be given more than once.")
PATH_KEYS = ("data_dir", "encoder", "preprocess")
KEYS = {
    key: flags.DEFINE_string(key, None, f"{schema.DESCRIPTIONS[key]} Default: {schema.DEFAULTS[key]}.")
    for key in schema.KEYS
}


def _given() -> dict[str, str]:
    return {key: flag.value for key, flag in KEYS.items() if flag.value is not None}


def load_config() -> schema.Config:
    """The configuration that the flags give. Raises UsageError."""
    return loading.load_config(CONFIG.value, SET.value, _given())


def load_run_config(model_dir: str) -> schema.Config:
    """The configuration of the run in `model_dir`, with the paths that flags give in place of its own.

    Raises UsageError for any other flag of the configuration, and if there is no run.
    """
    path = fs.join(model_dir, schema.CONFIG_FILE)
    paths = {key: value for key, value in _given().items() if key in (*PATH_KEYS, "task")}
    other = [f"--{key}" for key in _given().keys() - paths.keys()]
    other += [f"--{flag.name}" for flag in (CONFIG, SET) if flag.value]
    if other:
        required = "be left out with this --mode, which takes the configuration of --model_dir"
        raise UsageError(Problem(", ".join(sorted(other)), required, "a value"))
    if not fs.exists(path):
        raise UsageError(Problem("--model_dir", "hold a run", f"{model_dir}, which has no {schema.CONFIG_FILE}"))
    return loading.load_config(path, (), paths)
