import numpy as np
import pytest

from trainer.data import widths


@pytest.mark.parametrize("seq_length", [3, 24, 100, 128, 257, 512])
@pytest.mark.parametrize("pad_multiple", [1, 8, 16, 1000])
def test_texts_of_any_length_have_four_widths_at_most(seq_length, pad_multiple):
    multiple = widths.coarse_pad_multiple(seq_length, pad_multiple)
    assert multiple % pad_multiple == 0
    found = widths.pad_lengths(np.arange(1, seq_length + 50), seq_length, multiple)
    assert (found >= np.minimum(np.arange(1, seq_length + 50), seq_length)).all()
    assert widths.list_widths(seq_length, multiple) == tuple(np.unique(found))
    assert len(np.unique(found)) <= widths.MAX_WIDTHS
    assert multiple - pad_multiple < -(-seq_length // widths.MAX_WIDTHS)  # It is the smallest such multiple.
