"""A YAML file of plain values: no tag that makes an object, no key twice in a mapping, every key a string."""

import json
from collections.abc import Iterator
from typing import Any

import yaml

from trainer.errors import Problem, UsageError
from trainer.storage import fs

_STRING = "tag:yaml.org,2002:str"
# What YAML makes of a plain key such as no, 1, 1.0, ~, 2026-01-01 or =.
_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float", "null", "timestamp", "value")}


def _list_mappings(root: yaml.Node | None) -> Iterator[yaml.MappingNode]:
    remaining, visited = [root], set()
    while remaining:
        node = remaining.pop()
        if id(node) in visited:  # An anchor can be used more than once.
            continue
        visited.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield node
            remaining += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            remaining += node.value


def _find_duplicate_keys(root: yaml.Node | None) -> Iterator[str]:
    """Each key that a mapping holds a second time, with its line. The constructor would silently take the last."""
    for mapping in _list_mappings(root):
        seen = set()
        for key, _ in mapping.value:
            if isinstance(key, yaml.ScalarNode):  # The constructor refuses the others.
                if key.value in seen:
                    yield f"line {key.start_mark.line + 1} has the key {key.value!r} a second time"
                seen.add(key.value)


def parse(text: str) -> tuple[Any, list[str]]:
    """(What safe_load makes of a document, but keys as they are written; what _find_duplicate_keys finds).

    So a class may be called no, or 1. Raises yaml.YAMLError.
    """
    root = yaml.compose(text, yaml.SafeLoader)
    duplicates = list(_find_duplicate_keys(root))
    for mapping in _list_mappings(root):
        for key, _ in mapping.value:
            if key.tag in _PLAIN_TAGS:
                key.tag = _STRING
    value = None if root is None else yaml.SafeLoader("").construct_document(root)
    return value, duplicates


def read_yaml(path: str, flag: str = "--config") -> dict[str, Any]:
    """The mapping in a YAML file, empty if the file is. Raises UsageError, naming the flag, for any other."""
    try:
        with open(fs.local_copy(path), "rb") as file:
            content = file.read()
    except OSError as error:
        raise UsageError(Problem(flag, "name a YAML file", f"{path} ({error.strerror or error})")) from None
    try:
        loaded, duplicates = parse(content.decode("utf-8"))
        json.dumps(loaded, default=str)  # A mapping that holds itself has no end.
    except (yaml.YAMLError, RecursionError, TypeError, ValueError) as error:
        raise UsageError(Problem(flag, "name a YAML file", f"{path}, which does not parse: {error}")) from None
    if duplicates:
        raise UsageError(Problem(flag, "hold each key once", f"{path}: {'; '.join(duplicates)}"))
    if not isinstance(loaded or {}, dict):
        received = f"{path}, which holds a {type(loaded).__name__}"
        raise UsageError(Problem(flag, "hold a mapping of keys to values", received))
    return loaded or {}
