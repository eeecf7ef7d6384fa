"""The few widths that batches are padded to where a compiler makes a program for each.

A width takes seconds to minutes to compile, on a TPU with training and evaluation as two programs.
"""

import numpy as np

MAX_WIDTHS = 4  # Of batches. A width for each multiple of data.pad_multiple would be up to 32 programs.


def coarse_pad_multiple(seq_length: int, pad_multiple: int) -> int:
    """The multiple of `pad_multiple` that leaves MAX_WIDTHS widths of at most `seq_length` tokens, or fewer."""
    smallest = -(-seq_length // MAX_WIDTHS)
    return -(-smallest // pad_multiple) * pad_multiple


def list_widths(seq_length: int, pad_multiple: int) -> tuple[int, ...]:
    """Every width that a batch may have, ascending: the multiples of `pad_multiple`, and `seq_length` as the last."""
    return (*range(pad_multiple, seq_length, pad_multiple), seq_length)


def pad_lengths(lengths: np.ndarray, seq_length: int, pad_multiple: int) -> np.ndarray:
    """The widths that rows of these lengths are padded to, int64 [rows]: rounded up, and at most `seq_length`."""
    return np.minimum(-(-lengths // pad_multiple) * pad_multiple, seq_length)
