"""Defaults < YAML preset < flags become one Config, with every error at once; and what is compared between two."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pydantic
import yaml

from trainer.config import schema, sink_targets, yaml_file
from trainer.errors import Problem, UsageError, advise_nearest
from trainer.storage import fs, paths

_ADAPTER = pydantic.TypeAdapter(schema.Config)

# What a value must be, by pydantic's type of error: https://docs.pydantic.dev/latest/errors/validation_errors/
_REQUIRED = {
    "missing": "be given",
    "bool_parsing": "be true or false",
    "class_weights": "be balanced, none, or weights from 1e-6 to 1e6 by label, such as {{spam: 10, ham: 1}}",
    "bool_type": "be true or false",
    "dataclass_type": "be a section of keys",
    "finite_number": "be a finite number",
    "float_parsing": "be a number",
    "float_type": "be a number",
    "freeze": "be none, embeddings, layers:N (such as layers:3) or encoder",
    "greater_than": "be greater than {gt}",
    "greater_than_equal": "be at least {ge}",
    "int_from_float": "be an integer",
    "int_parsing": "be an integer",
    "int_parsing_size": "be an integer of fewer digits",
    "int_type": "be an integer",
    "invalid_key": "be a name",
    "is_instance_of": "be a list",
    "less_than": "be less than {lt}",
    "less_than_equal": "be at most {le}",
    "literal_error": "be {expected}",
    "sequence_str": "be a list",
    "sink_target": sink_targets.REQUIRED,
    "string_type": "be a string",
    "too_long": "have at most {max_length} items",
    "too_short": "have at least {min_length} items",
    "union_tag_invalid": "have a type of {expected_tags}",
    "union_tag_not_found": "have a type",
}
UNKNOWN_KEY_ERRORS = ("unexpected_keyword_argument", "extra_forbidden")


def _unknown_key(key: str) -> Problem:
    advice = advise_nearest(key, schema.KEYS) or f"The keys are {', '.join(schema.KEYS)}."
    return Problem(key, "be a key of the configuration", key, advice)


def describe_requirement(error: Mapping[str, Any]) -> str:
    """What the value of one of pydantic's errors must be, to follow the word "must"."""
    return _REQUIRED.get(error["type"], "be valid").format_map(error.get("ctx", {}))


def problems_of(invalid: pydantic.ValidationError) -> Iterator[Problem]:
    """What pydantic found, as problems. `invalid` is of a tree of sections whose leaves are keys."""
    for error in invalid.errors():
        key = ".".join(map(str, error["loc"]))
        if error["type"] not in UNKNOWN_KEY_ERRORS:
            advice = f"Change it with --{key}=..." if key in schema.KEYS else ""
            yield Problem(key, describe_requirement(error), repr(error["input"]), advice)
        elif isinstance(error["input"], Mapping):
            yield from (_unknown_key(f"{key}.{name}") for name, _ in schema.flatten(error["input"]))
        else:
            yield _unknown_key(key)


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    for section in sections:
        child = tree.setdefault(section, {})
        if not isinstance(child, dict):
            child = tree[section] = {}
        tree = child
    tree[name] = value


def parse_overrides(overrides: Iterable[str], problems: list[Problem]) -> dict[str, str]:
    """ "section.key=value", as --set has it, -> {"section.key": "value"}. Adds a problem for what is none."""
    parsed = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if equals and key:
            parsed[key.strip()] = value
        else:
            problems.append(Problem("--set", "be section.key=value", repr(override)))
    return parsed


def _read_words(key: str, value: Any) -> Any:
    """A value as a flag has it, without its spaces: a word may stand for none. Any other value as it is."""
    if not isinstance(value, str):
        return value
    unset = value.strip() in ("null", "none", "") and not isinstance(schema.DEFAULTS.get(key), str)
    return None if unset else value.strip()


def load_config(
    path: str | None, overrides: Sequence[str] = (), settings: Mapping[str, Any] | None = None
) -> schema.Config:
    """Defaults < the YAML file at `path` < `overrides` ("section.key=value") < `settings` (key -> value).

    Values are coerced by the type of their key, so that YAML's string `2e-5` is a number, and `off` is no boolean
    where a word is required. `None`, and the text `none`, `null` or nothing, unsets a key that is not a string. Raises
    UsageError with every problem, and the nearest known key for an unknown one.
    """
    problems: list[Problem] = []
    tree: dict[str, Any] = {}
    try:
        tree = yaml_file.read_yaml(path) if path else {}
    except UsageError as unread:  # What is wrong with the other settings is reported with it.
        problems += unread.problems
    given = {**parse_overrides(overrides, problems), **(settings or {})}
    given = {key: _read_words(key, value) for key, value in given.items()}
    for key, rival in (("training.steps", "training.epochs"), ("training.epochs", "training.steps")):
        if given.get(key) is not None and rival not in given and isinstance(tree.get("training"), dict):
            _set(tree, rival, None)  # The one that was asked for replaces the preset's other.
    for key, value in given.items():
        _set(tree, key, value)
    tree = {key: value for key, value in tree.items() if value is not None}  # An empty section sets nothing.
    training = tree.get("training")
    if isinstance(training, dict) and training.get("epochs") and training.get("steps"):
        both = f"{training['epochs']} and {training['steps']}"
        problems.append(Problem("training.epochs or training.steps", "be set, not both", both, "Leave out one."))
    try:
        config = _ADAPTER.validate_python(tree)
    except pydantic.ValidationError as invalid:
        for key, value in schema.flatten(tree):
            if key in schema.PATH_KEYS and isinstance(value, str) and key not in (settings or {}):
                paths.normalize_path(f"--{key}", value, problems, url=key in schema.URL_KEYS)
        raise UsageError(*problems_of(invalid), *problems) from None
    found = {
        key: paths.normalize_path(f"--{key}", value, problems, url=key in schema.URL_KEYS)
        for key, value in schema.get_values(config, schema.PATH_KEYS).items()
    }
    if problems:
        raise UsageError(*problems)
    return schema.replace_values(config, found)


def load_run_config(model_dir: str, settings: Mapping[str, Any]) -> schema.Config:
    """The configuration of the run in `model_dir`, with the `settings` of schema.REPLACEABLE_KEYS in place of its own.

    Raises UsageError for any other setting, and if there is no run.
    """
    others = {key: value for key, value in settings.items() if key not in schema.REPLACEABLE_KEYS}
    if others:
        required = "be left out where the configuration is that of the run in --model_dir"
        raise UsageError(*(Problem(f"--{key}", required, str(value)) for key, value in others.items()))
    path = fs.join(model_dir, schema.CONFIG_FILE)
    if not fs.exists(path):
        raise UsageError(Problem("--model_dir", "hold a run", f"{model_dir}, which has no {schema.CONFIG_FILE}"))
    return load_config(path, (), settings)


def dump_config(config: schema.Config) -> str:
    """The configuration as YAML. `load_config` reads it back."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True)


def changed_settings(config: schema.Config) -> dict[str, Any]:
    """The keys of a configuration that differ from the defaults, with their values."""
    values = dict(schema.flatten(dataclasses.asdict(config)))
    return {key: value for key, value in values.items() if value != schema.DEFAULTS[key]}


def format_value(value: Any) -> str:
    """What a flag has to be for this value of a setting: `load_config` reads it back."""
    if value is None:
        return "none"
    # JSON is YAML, in which a mapping is read back; of a pair of escapes YAML would not make one character.
    return json.dumps(value, ensure_ascii=False) if isinstance(value, bool | dict) else str(value)


def resolve_as(started: schema.Config, config: schema.Config) -> schema.Config:
    """`config` with what a started run made of `auto`."""
    if config.precision == "auto":
        config = dataclasses.replace(config, precision=started.precision)
    if config.eval_precision == "auto":
        config = dataclasses.replace(config, eval_precision=started.eval_precision)
    if config.model.compile == "auto":
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, compile=started.model.compile))
    return config


def find_differences(old: schema.Config, new: schema.Config) -> list[str]:
    """What differs between a run's configuration and a new one that may not: "key: old in the run, new here"."""
    before, after = schema.fingerprinted(old), schema.fingerprinted(new)
    return [f"{key}: {before[key]} in the run, {after[key]} here" for key in before if before[key] != after[key]]


def check_replicas(config: schema.Config, replicas: int, examples: int | None = None) -> None:
    """Raises UsageError if some replica would never have an example. `examples` is the training split's size."""
    counts = {"data.batch_size": config.data.batch_size, "The number of training examples": examples}
    for setting, count in counts.items():
        if count is not None and count < replicas:
            required = f"be at least the number of replicas, {replicas}"
            raise UsageError(Problem(setting, required, str(count), "Raise --data.batch_size, or use fewer devices."))
