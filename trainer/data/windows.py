"""Long texts by windows: a text that does not fit into seq_length tokens becomes several sequences that do.

Windows start `stride` tokens apart. The last one ends with the text, so that every window of a long text is full. A
text longer than `most` windows can cover is first truncated like "head_tail": its middle is dropped. Records keep
longer texts as both ends too, so training and the export, which has the complete text, select the same tokens.

Shapes: B texts of a batch, (T) tokens of a text (ragged), N windows of all its texts, W width: tokens of a row.
"""

import dataclasses

import tensorflow as tf

from trainer.data import manifests, tokenization
from trainer.errors import Problem, UsageError

TRUNCATION = "windows"  # The value of data.truncation.


@dataclasses.dataclass(frozen=True)
class Windows:
    """How texts are divided."""

    content: int  # Tokens of a full window, without special tokens.
    stride: int  # Tokens from the start of a window to that of the next.
    most: int  # Windows of a text.

    @property
    def covered(self) -> int:
        """The tokens of the longest text of which nothing is dropped."""
        return self.content + (self.most - 1) * self.stride


def plan_windows(seq_length: int, stride: int | None, most: int) -> Windows:
    """Windows of `seq_length` tokens, special tokens included. A stride of None is three quarters of the content.

    Raises UsageError if windows would leave gaps, or cover more than the records hold.
    """
    content = seq_length - tokenization.special_token_count(1)
    windows = Windows(content, max(content * 3 // 4, 1) if stride is None else stride, most)
    if windows.stride > content:
        required = f"be at most the {content} tokens of a window, or tokens between windows would be dropped"
        raise UsageError(Problem("data.window_stride", required, str(stride)))
    if windows.covered > manifests.MAX_TOKENS:
        required = f"cover at most the {manifests.MAX_TOKENS:,} tokens that are stored of a text"
        received = f"{most}, which cover {windows.covered:,}"
        largest = 1 + (manifests.MAX_TOKENS - content) // windows.stride
        raise UsageError(Problem("data.max_windows", required, received, f"It may be {largest} at most."))
    return windows


def count_windows(lengths: tf.Tensor, windows: Windows) -> tf.Tensor:
    """The number of windows of texts with these numbers of tokens, at least 1. int32 of any shape, as `lengths`."""
    rest = tf.maximum(tf.minimum(lengths, windows.covered) - windows.content, 0)
    return 1 + (rest + windows.stride - 1) // windows.stride


def divide(tokens: tf.RaggedTensor, windows: Windows) -> tuple[tf.RaggedTensor, tf.Tensor]:
    """Divide each text of `tokens`, int32 [B, (T)], into windows.

    Returns the tokens of all windows, int32 [N, (at most content)], those of the first text first; and the number of
    windows of each text, int32 [B].
    """
    tokens = tokenization.truncate(tokens, tf.constant(windows.covered), "head_tail")
    lengths = tf.cast(tokens.row_lengths(), tf.int32)
    counts = count_windows(lengths, windows)
    numbers = tf.ragged.range(counts)  # int32 [B, (windows of the text)]: 0, 1, 2, ...
    text = numbers.value_rowids()
    last_start = tf.gather(tf.maximum(lengths - windows.content, 0), text)
    starts = tf.gather(tf.cast(tokens.row_starts(), tf.int32), text)
    starts += tf.minimum(numbers.values * windows.stride, last_start)
    positions = tf.ragged.range(starts, starts + tf.gather(tf.minimum(lengths, windows.content), text))
    return positions.with_values(tf.gather(tokens.values, positions.values)), counts


def pack_windows(
    tokens: tf.RaggedTensor,
    special: tokenization.SpecialTokens,
    seq_length: int,
    windows: Windows,
    width: tf.Tensor | int | None = None,
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """The encoder's inputs for all windows of all texts, and the number of windows of each text, int32 [B].

    The inputs are those of tokenization.pack_inputs, int32 [N, W]: each window is between special tokens.
    """
    divided, counts = divide(tokens, windows)
    return tokenization.pack_inputs(divided, None, special, seq_length, "head", width), counts


def pad_windows(
    inputs: dict[str, tf.Tensor], counts: tf.Tensor, special: tokenization.SpecialTokens, largest: tf.Tensor
) -> dict[str, tf.Tensor]:
    """What pack_windows returns as int32 [B, largest, W]: each text with `largest` (int32 []) windows.

    The windows that a text does not have are padding alone: their input_mask is 0 everywhere.
    """
    shape = tf.cast(tf.stack([-1, largest, tf.shape(inputs["input_mask"])[1]]), tf.int64)
    return {
        name: tf.RaggedTensor.from_row_lengths(value, counts).to_tensor(
            special.padding if name == "input_word_ids" else 0, shape=shape
        )
        for name, value in inputs.items()
    }
