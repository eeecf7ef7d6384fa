"""A flag for each key of the configuration, such as --optimizer.learning_rate, and --config and --set.

Importing this module defines them. A command shows them in its --help with absl.flags.adopt_module_key_flags.
"""

from absl import flags

from trainer.config import loading, schema

CONFIG = flags.DEFINE_string("config", None, "A YAML preset, such as those in configs/.")
SET = flags.DEFINE_multi_string("set", [], "The same as --section.key=value. May be given more than once.")
KEYS = {
    key: flags.DEFINE_string(key, None, f"{schema.DESCRIPTIONS[key]} Default: {schema.DEFAULTS[key]}.")
    for key in schema.KEYS
}


def load_config(path: str | None = None) -> schema.Config:
    """The configuration that the flags give. `path` takes the place of --config. Raises UsageError."""
    given = {key: flag.value for key, flag in KEYS.items() if flag.value is not None}
    return loading.load_config(path or CONFIG.value, SET.value, given)
