"""A YAML file of plain values: no tag that makes an object, no key twice."""

from typing import Any

import yaml

from trainer.errors import UsageError
from trainer.storage import fs


def _parsed(text: str) -> Any:
    """What YAML holds: plain values alone. Raises YAMLError with every key that is given twice, and every other tag."""
    found, seen, left = [], set(), [yaml.compose(text, yaml.SafeLoader)]
    while left:
        node = left.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if node.tag not in (*yaml.SafeLoader.yaml_constructors, "tag:yaml.org,2002:merge"):
            found.append((node.start_mark.line + 1, f"the tag {node.tag!r}, which would make an object"))
        elif isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            found += [
                (key.start_mark.line + 1, f"the key {key.value!r} a second time")
                for place, (key, _) in enumerate(node.value)
                if key.value in keys[:place]
            ]
        if not isinstance(node, yaml.ScalarNode):
            left += [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
    if found:
        raise yaml.YAMLError("; ".join(f"line {line} has {what}" for line, what in sorted(found)))
    return yaml.safe_load(text)


def read_yaml(path: str, flag: str = "--config") -> dict[str, Any]:
    """The mapping in a YAML file, empty if the file is. Raises UsageError, naming the flag, for any other."""
    try:
        with open(fs.local_copy(path), encoding="utf-8") as file:
            loaded = _parsed(file.read())
    except OSError as error:
        why = error.strerror or error
        raise UsageError(f"{flag} must name a YAML file. Received: {path} ({why}).") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{flag} must name a YAML file. Received: {path}, which does not parse: {error}") from None
    if not isinstance(loaded or {}, dict):
        raise UsageError(
            f"{flag} must hold a mapping of keys to values. Received: {path}, which holds a {type(loaded).__name__}."
        )
    return loaded or {}
