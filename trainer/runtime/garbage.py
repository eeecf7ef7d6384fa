"""How often Python looks for objects that only refer to each other.

By default it does so after 700 new objects, and walks through all that TensorFlow has made again and again: 1,300 to
1,600 collections took a fifth of the time from the start of a job to its second step.
"""

import gc

NEW_OBJECTS = 100_000


def collect_rarely() -> None:
    """Collect after NEW_OBJECTS in this process. What is in no cycle is freed at once, without a collection."""
    gc.set_threshold(NEW_OBJECTS, *gc.get_threshold()[1:])


def collect_recent() -> None:
    """Collect the objects that are young, of generations 0 and 1, in about 10 ms.

    After work that leaves cycles. An evaluation leaves 4,000 objects of TensorFlow's data sets, which hold more memory
    than Python's: without this, that of 10,000 steps with 10 evaluations grew by 2 %.
    """
    gc.collect(1)
