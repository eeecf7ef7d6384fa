"""Records of JSON files: one object a line, or one array of objects."""

import io
import itertools
import json
from collections.abc import Iterator
from typing import Any, TextIO

from trainer.errors import Problem, UserError

READ_CHARACTERS = 1 << 16
# The longest element of an array. One that does not parse is read as far as this.
MAX_ELEMENT_CHARACTERS = 1 << 26
_BETWEEN_ELEMENTS = " \t\r\n,"


def read_json(stream: TextIO, source: str) -> tuple[list[str], Iterator[tuple[int, dict[str, Any] | str]]]:
    """(the columns, which are the keys of the first object, the records of a stream opened with newline="\\n").

    A record is the line that it begins in, and its values by key or why they cannot be used. Raises UserError for an
    array that does not parse, and for one object over several lines.
    """
    head = stream.read(READ_CHARACTERS)
    while not head.strip() and (more := stream.read(READ_CHARACTERS)):
        head += more
    blank = len(head) - len(head.lstrip())
    line, head = 1 + head.count("\n", 0, blank), head[blank:]
    if head.startswith("["):
        values = _array_elements(stream, head, line, source)
    else:
        lines = itertools.chain(io.StringIO(head + stream.readline(), newline="\n"), stream)
        first = next(lines, "")
        if first.strip() == "{":
            required = "hold one JSON object a line, or an array of objects"
            raise UserError(Problem(source, required, f"an object over several lines, from line {line}"))
        values = _line_values(itertools.chain([first], lines), line)
    records = ((n, value if isinstance(value, dict | str) else "not a JSON object") for n, value in values)
    skipped = []
    columns: list[str] = []
    for record in records:
        skipped.append(record)
        if isinstance(record[1], dict):
            columns = list(record[1])
            break
    return columns, itertools.chain(skipped, records)


def _line_values(lines: Iterator[str], first_line: int) -> Iterator[tuple[int, object]]:
    """Each line's value, or the reason, a string, why there is none."""
    for number, line in enumerate(lines, first_line):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, f"not JSON ({error})"
            continue
        yield number, None if isinstance(value, str) else value


def _array_elements(stream: TextIO, buffer: str, line: int, source: str) -> Iterator[tuple[int, object]]:
    """The elements of an array, read a part at a time; None for one that is a string."""
    decoder = json.JSONDecoder()
    position, complete = buffer.index("[") + 1, False

    def refuse(why: str) -> UserError:
        return UserError(Problem(source, "be a complete JSON array", f"line {line}: {why}"))

    while True:
        start = position
        while position < len(buffer) and buffer[position] in _BETWEEN_ELEMENTS:
            position += 1
        line += buffer.count("\n", start, position)
        why = "it does not close"
        if buffer[position : position + 1] == "]":
            if (buffer[position + 1 :] + stream.read(READ_CHARACTERS)).strip():
                raise refuse("text after its end")
            return
        if position < len(buffer):
            try:
                value, end = decoder.raw_decode(buffer, position)
            except (ValueError, RecursionError) as error:
                why = getattr(error, "msg", str(error))
            else:
                yield line, None if isinstance(value, str) else value
                line += buffer.count("\n", position, end)
                position = end
                continue
        buffer, position = buffer[position:], 0
        if complete or len(buffer) > MAX_ELEMENT_CHARACTERS:
            raise refuse(why)
        read = stream.read(max(READ_CHARACTERS, len(buffer)))  # Twice as much each time, since parsing begins anew.
        buffer, complete = buffer + read, not read
