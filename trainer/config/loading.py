"""What a run is: frozen dataclasses; defaults < YAML preset < flags; every error at once.

`load` is the way in, `dump` the way out: a run writes its resolved configuration beside its results.
"""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic
import yaml

from trainer.config import schema, yaml_file
from trainer.errors import UsageError

_ADAPTER = pydantic.TypeAdapter(schema.Config)


def _nearest(key: str) -> str:
    # A right name in the wrong section is the likelier slip than a wrong name in the right one.
    near = [k for k in schema.KEYS if k.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]]
    near = near or difflib.get_close_matches(key, schema.KEYS, n=1, cutoff=0.5)
    return f"; the nearest is {near[0]}" if near else f"; there are {', '.join(schema.KEYS)}"


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    for section in sections:
        child = tree.setdefault(section, {})
        if not isinstance(child, dict):
            child = tree[section] = {}
        tree = child
    tree[name] = value


def validate(tree: Mapping[str, Any]) -> schema.Config:
    """The Config that a tree of plain values stands for. Raises UsageError with every error in it."""
    errors = []
    tree = {key: value for key, value in tree.items() if value is not None}  # an empty section sets nothing
    try:
        config = _ADAPTER.validate_python(tree)
    except pydantic.ValidationError as invalid:
        for error in invalid.errors():
            key = ".".join(
                str(part) for part in error["loc"] if not str(part).startswith(("function-", "float", "int"))
            )
            if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
                section = error["input"] if isinstance(error["input"], Mapping) else None
                unknown = [f"{key}.{name}" for name, _ in schema.flatten(section)] if section else [key]
                errors += [f"{k}: a known key was required{_nearest(k)}. Received: {k}." for k in unknown]
            else:
                wanted = (
                    error["msg"].removeprefix("Input should be ").removeprefix("Value error, ").split(", unable")[0]
                )
                errors.append(
                    f"{key}: {wanted} was required. Received: {error['input']!r}. Change it with --set {key}=..."
                )
    training = tree.get("training")
    if isinstance(training, dict) and training.get("epochs") and training.get("steps"):
        both = f"{training['epochs']} and {training['steps']}"
        errors.append(f"training.epochs or training.steps was required, not both. Received: {both}.")
    if not errors:
        return config
    raise UsageError("\n".join(["the configuration has errors:", *dict.fromkeys(errors)]))


def load_config(
    path: str | None, overrides: Sequence[str] = (), flags: Mapping[str, Any] | None = None
) -> schema.Config:
    """Defaults < the YAML file at `path` < `overrides` ("section.key=value") < `flags` that are not None.

    Values are coerced by their field's type (so that YAML's string `2e-5` is a number, and `off` is
    no boolean where a word is wanted). Raises UsageError with every error, and the nearest valid
    key for an unknown one.
    """
    tree = yaml_file.read_yaml(path) if path else {}
    keys = {override.partition("=")[0].strip() for override in overrides}
    for key, rival in (("training.steps", "training.epochs"), ("training.epochs", "training.steps")):
        if key in keys and rival not in keys and isinstance(tree.get("training"), dict):
            _set(tree, rival, None)  # the one that was asked for replaces the preset's other
    malformed = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            malformed.append(f"--set takes section.key=value. Received: {override!r}.")
        else:
            unset = value.strip() in ("null", "none", "") and not isinstance(schema.DEFAULTS.get(key.strip()), str)
            _set(tree, key.strip(), None if unset else value.strip())
    for key, value in (flags or {}).items():
        if value is not None:
            _set(tree, key, value)
    try:
        config = validate(tree)
    except UsageError as error:
        raise UsageError("\n".join([str(error), *malformed])) from None
    if malformed:
        raise UsageError("\n".join(malformed))
    return config


def dump_config(config: schema.Config) -> str:
    """The configuration as YAML; `load` gives it back."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True)


def find_differences(old: schema.Config, new: schema.Config) -> list[str]:
    """Keys that may not differ between a run and its resumption, but do: "key: old there, new here"."""
    before, after = dict(schema.flatten(dataclasses.asdict(old))), dict(schema.flatten(dataclasses.asdict(new)))
    return [
        f"{key}: {before[key]} there, {after[key]} here"
        for key in schema.KEYS
        if before[key] != after[key] and not key.startswith(schema.NOT_FINGERPRINTED)
    ]


def check_replicas(config: schema.Config, replicas: int, examples: int | None = None) -> None:
    """Raises UsageError if some replica would never have an example; `examples` is the size of train, where known."""
    for what, count in (("data.batch_size", config.data.batch_size), ("the training examples", examples)):
        if count is not None and count < replicas:
            raise UsageError(
                f"{what} must be at least as many as the replicas, {replicas}. Received: {count}. "
                "Raise data.batch_size with --set, or use fewer devices."
            )
