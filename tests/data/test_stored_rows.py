"""Rows that come back from the disk as they were."""

import concurrent.futures
import dataclasses

from helpers import outcome

from trainer.data.sources import Row, Texts
from trainer.data.stored_rows import TextStore, store_row

ROWS = [
    Row(0, "plain", None, "a", "train"),
    Row("b/1.txt", "café 語 \ud83d\x00\n", "", "b", "", None, 0.5, ("kept", "")),
    Row(2, "x" * 100_000, "second", "", "test", ("a", "b")),
]


def test_a_stored_row_is_the_row():
    store = TextStore()
    for row in ROWS:
        stored = store_row(row, store)
        assert stored.texts() == row.texts()
        assert stored.label_names == row.label_names
        for name in ("id", "label", "split", "labels", "weight"):
            assert getattr(stored, name) == getattr(row, name)
        renamed = dataclasses.replace(stored, label="c")
        assert (renamed.label, renamed.texts()) == ("c", row.texts())


def test_texts_are_read_by_several_threads_while_others_are_added():
    store = TextStore()
    numbers = [store.add(Texts(f"text {i}" * (i % 50), None, ())) for i in range(2000)]

    def is_right(number: int) -> bool:
        return store.read(number) == Texts(f"text {number}" * (number % 50), None, ())

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        found = threads.map(is_right, numbers)
        for _ in range(500):
            store.add(Texts("another", None, ()))
        assert all(found)


FULL = """
import resource, signal
from trainer.data.sources import Texts
from trainer.data.stored_rows import TextStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
store = TextStore()
for _ in range(100):
    store.add(Texts("x" * 10_000, None, ()))
"""


def test_a_file_that_cannot_grow_is_an_error_of_the_system():
    code, _, error = outcome(FULL)
    assert code == 1
    assert "OSError: [Errno 27] File too large" in error
