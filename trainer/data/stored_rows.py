"""Rows whose texts are in a temporary file, so that a source may have more of them than fit in memory.

What is left of a row takes less than 300 bytes, splitting included.
"""

import array
import dataclasses
import json
import os
import tempfile

from trainer.data.sources import Row, Texts


class TextStore:
    """The texts of rows, in a file in TMPDIR that is gone with this object. Any thread may read them."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  It is closed with this object.
        self._ends = array.array("Q", [0])

    def add(self, texts: Texts) -> int:
        """Returns the number by which they are read again. Raises OSError if the disk is full."""
        data = json.dumps(texts, ensure_ascii=False).encode("utf-8", "surrogatepass")
        self._file.write(data)
        self._ends.append(self._ends[-1] + len(data))
        return len(self._ends) - 2

    def read(self, number: int) -> Texts:
        self._file.flush()
        start, end = self._ends[number : number + 2]
        data = os.pread(self._file.fileno(), end - start, start)
        text, text_b, kept = json.loads(data.decode("utf-8", "surrogatepass"))
        return Texts(text, text_b, tuple(kept))


@dataclasses.dataclass(frozen=True, slots=True)
class StoredRow:
    """A Row, whose texts `texts` reads from a store."""

    id: int | str
    label: str
    split: str
    labels: tuple[str, ...] | None
    weight: float | None
    store: TextStore
    number: int  # Of its texts in the store.

    def texts(self) -> Texts:
        return self.store.read(self.number)

    @property
    def label_names(self) -> tuple[str, ...]:
        """One, unless a text may have several."""
        return (self.label,) if self.labels is None else self.labels


AnyRow = Row | StoredRow


def store_row(row: Row, store: TextStore) -> StoredRow:
    """The row, with its texts in the store."""
    return StoredRow(row.id, row.label, row.split, row.labels, row.weight, store, store.add(row.texts()))
