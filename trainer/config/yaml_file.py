"""A YAML file of plain values: no tag that makes an object, no key twice in a mapping."""

from collections.abc import Iterator
from typing import Any

import yaml

from trainer.errors import Problem, UsageError
from trainer.storage import fs


def _find_duplicate_keys(root: yaml.Node | None) -> Iterator[str]:
    """Each key that a mapping holds a second time, with its line. safe_load would silently take the last."""
    remaining, visited = [root], set()
    while remaining:
        node = remaining.pop()
        if id(node) in visited:  # An anchor can be used more than once.
            continue
        visited.add(id(node))
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode):  # safe_load refuses the others.
                    if key.value in seen:
                        yield f"line {key.start_mark.line + 1} has the key {key.value!r} a second time"
                    seen.add(key.value)
                remaining.append(value)
        elif isinstance(node, yaml.SequenceNode):
            remaining += node.value


def read_yaml(path: str, flag: str = "--config") -> dict[str, Any]:
    """The mapping in a YAML file, empty if the file is. Raises UsageError, naming the flag, for any other."""
    try:
        with open(fs.local_copy(path), encoding="utf-8") as file:
            text = file.read()
        duplicates = list(_find_duplicate_keys(yaml.compose(text, yaml.SafeLoader)))
        if duplicates:
            raise UsageError(Problem(flag, "hold each key once", f"{path}: {'; '.join(duplicates)}"))
        loaded = yaml.safe_load(text)
    except OSError as error:
        raise UsageError(Problem(flag, "name a YAML file", f"{path} ({error.strerror or error})")) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(Problem(flag, "name a YAML file", f"{path}, which does not parse: {error}")) from None
    if not isinstance(loaded or {}, dict):
        received = f"{path}, which holds a {type(loaded).__name__}"
        raise UsageError(Problem(flag, "hold a mapping of keys to values", received))
    return loaded or {}
