import numpy as np
import pytest

from trainer.errors import UserError
from trainer.export import token_classifier


def test_rows_are_classified_in_batches_and_in_order():
    sizes = []

    def classify(inputs):
        sizes.append(len(inputs["input_word_ids"]))
        return inputs["input_word_ids"][:, :2] * 2

    rows = np.arange(120, dtype=np.int32).reshape(40, 3)
    logits = token_classifier.classify_rows(classify, {"input_word_ids": rows})
    assert np.array_equal(logits, rows[:, :2] * 2)
    assert logits.dtype == np.float32
    assert sizes == [16, 16, 8]


def test_a_folder_without_a_description_is_named(tmp_path):
    with pytest.raises(UserError, match=f"must hold classifier.json.*{tmp_path}"):
        token_classifier.load_classifier(str(tmp_path))
