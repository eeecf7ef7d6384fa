"""Windows of known tokens. Texts are 1, 2, 3, ..., so that a window shows where it is from."""

import numpy as np
import pytest
import tensorflow as tf

from trainer.data import batching, manifests, tokenization, windows
from trainer.errors import UsageError

SPECIAL = tokenization.SpecialTokens(start=101, end=102, padding=9)
WINDOWS = windows.plan_windows(seq_length=6, stride=3, most=3)  # of 4 tokens; 10 are covered


def texts(*lengths: int) -> tf.RaggedTensor:
    return tf.RaggedTensor.from_row_lengths(
        np.concatenate([np.arange(1, n + 1, dtype=np.int32) for n in lengths]), lengths
    )


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (0, [[]]),
        (1, [[1]]),
        (4, [[1, 2, 3, 4]]),  # It fits: one window.
        (5, [[1, 2, 3, 4], [2, 3, 4, 5]]),  # The last window ends with the text.
        (7, [[1, 2, 3, 4], [4, 5, 6, 7]]),  # Two windows exactly.
        (8, [[1, 2, 3, 4], [4, 5, 6, 7], [5, 6, 7, 8]]),
        (10, [[1, 2, 3, 4], [4, 5, 6, 7], [7, 8, 9, 10]]),  # Three windows exactly.
        (20, [[1, 2, 3, 4], [4, 5, 16, 17], [17, 18, 19, 20]]),  # Of 20 tokens, 10 are kept: 5 of each end.
    ],
)
def test_a_text_is_divided_into_full_windows(length, expected):
    divided, counts = windows.divide(texts(length), WINDOWS)
    assert divided.to_list() == expected
    assert counts.numpy().tolist() == [len(expected)]


def test_windows_of_a_batch_are_those_of_its_texts_in_order():
    lengths = [0, 12, 4, 0, 5, 9]
    divided, counts = windows.divide(texts(*lengths), WINDOWS)
    alone = [windows.divide(texts(length), WINDOWS)[0].to_list() for length in lengths]
    assert divided.to_list() == [window for text in alone for window in text]
    assert counts.numpy().tolist() == [len(text) for text in alone]
    assert windows.count_windows(tf.constant(lengths), WINDOWS).numpy().tolist() == counts.numpy().tolist()


@pytest.mark.parametrize("stride", [1, 2, 3, 7, 11])
def test_no_token_is_dropped_of_a_text_that_is_covered(stride):
    plan = windows.plan_windows(13, stride, 5)
    for length in range(plan.covered + 1):
        divided, counts = windows.divide(texts(length), plan)
        assert {token for window in divided.to_list() for token in window} == set(range(1, length + 1))
        assert length <= 11 or {len(window) for window in divided.to_list()} == {11}
        assert int(counts[0]) <= 5
    assert int(counts[0]) == 5


def test_windows_of_a_capped_text_are_those_of_the_text():
    plan = windows.plan_windows(34, 32, 3)
    text = texts(300)
    capped = tokenization.truncate(text, tf.constant(plan.covered), "head_tail")  # As preparation stores it.
    assert windows.divide(capped, plan)[0].to_list() == windows.divide(text, plan)[0].to_list()


def test_each_window_is_between_special_tokens():
    inputs, counts = windows.pack_windows(texts(5, 2), SPECIAL, 6, WINDOWS)
    assert inputs["input_word_ids"].numpy().tolist() == [
        [101, 1, 2, 3, 4, 102],
        [101, 2, 3, 4, 5, 102],
        [101, 1, 2, 102, 9, 9],
    ]
    assert inputs["input_mask"].numpy().tolist() == [[1] * 6, [1] * 6, [1] * 4 + [0] * 2]
    assert not inputs["input_type_ids"].numpy().any()
    padded = windows.pad_windows(inputs, counts, SPECIAL, tf.constant(3))
    assert {tuple(value.shape) for value in padded.values()} == {(2, 3, 6)}
    assert padded["input_mask"].numpy()[..., 0].tolist() == [[1, 1, 0], [1, 0, 0]]
    assert padded["input_word_ids"].numpy()[1, 1:].tolist() == [[9] * 6] * 2
    assert padded["input_word_ids"].numpy()[0, :2].tolist() == inputs["input_word_ids"].numpy()[:2].tolist()


@pytest.mark.parametrize("truncation", tokenization.TRUNCATIONS)
def test_a_text_that_fits_is_packed_as_by_truncation(truncation):
    tokens = texts(4, 0, 3)
    inputs, counts = windows.pack_windows(tokens, SPECIAL, 6, WINDOWS, width=6)
    expected = tokenization.pack_inputs(tokens, None, SPECIAL, 6, truncation, width=6)
    assert counts.numpy().tolist() == [1, 1, 1]
    for name, value in expected.items():
        assert inputs[name].numpy().tolist() == value.numpy().tolist()


def test_a_stride_is_three_quarters_of_a_window_by_default():
    assert windows.plan_windows(128, None, 4) == windows.Windows(content=126, stride=94, most=4)
    assert windows.plan_windows(3, None, 4).stride == 1


@pytest.mark.parametrize(
    ("seq_length", "stride", "most", "setting", "received", "advice"),
    [
        (128, 127, 4, "data.window_stride", "127", "126"),
        (128, 126, 66, "data.max_windows", "8,316", "65"),
    ],
)
def test_windows_that_would_drop_tokens_are_refused(seq_length, stride, most, setting, received, advice):
    with pytest.raises(UsageError) as raised:
        windows.plan_windows(seq_length, stride, most)
    (problem,) = raised.value.problems
    assert problem.setting == setting
    assert received in problem.received
    assert advice in str(problem)
    assert windows.plan_windows(128, 126, 65).covered == 8190


@pytest.mark.parametrize(("grouped", "least", "most"), [(True, 0.0, 0.03), (False, 0.2, 0.5)])
def test_few_windows_are_padding_if_texts_are_grouped_by_length(grouped, least, most):
    """Lengths like those of IMDB's reviews: half of them above 232 tokens, a tenth above 615."""
    lengths = np.random.default_rng(0).lognormal(np.log(232), 0.76, 4000).astype(np.int64)
    pool = batching.Pool(0, 0, 0, (manifests.Shard("", len(lengths), 0, 0),))
    rows = batching.shuffle_pool(lengths, pool, batching.ShuffleOrder(0, grouped, len(lengths)), 32)
    counts = windows.count_windows(tf.constant(lengths[rows], tf.int32), windows.plan_windows(128, None, 4)).numpy()
    computed = sum(32 * counts[start : start + 32].max() for start in range(0, len(lengths), 32))
    share = 1 - counts.sum() / computed
    print(f"grouped by length: {grouped}; {counts.mean():.2f} windows of a text; {share:.1%} of all are padding")
    assert least < share < most
