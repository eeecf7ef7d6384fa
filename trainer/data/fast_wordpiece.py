"""A Hub preprocessor's WordPiece as one operation of TensorFlow Text: the same tokens in a tenth of the time.

The preprocessor folds case and normalizes whole texts and divides them by regular expressions, each an operation.
`FastBertTokenizer` does all of it at once, with a table of code points and the algorithm of
https://arxiv.org/abs/2012.15524. Preparation uses it; an export has the preprocessor.
"""

import dataclasses
import logging
from collections.abc import Sequence

import tensorflow as tf
import tensorflow_text as tf_text

from trainer.data import tokenization
from trainer.data.tokenization import Tokenizer
from trainer.errors import describe_error

# Code points that the two treat differently: separators that \s does not match (U+1680, U+2028, U+2029), punctuation
# newer than the regular expressions' Unicode, and marks that Unicode reorders and that are not removed as accents. They
# are excluded with their blocks, since a later Unicode may add more; tests/data/test_fast_wordpiece.py compares all
# others. Without lower case, nothing maps other spaces to U+0020, which \s does not match either.
_DIFFERENT = (
    r"\x{1680}-\x{1BFF}\x{2028}\x{2029}\x{302E}\x{302F}\x{A900}-\x{A9FF}\x{10000}-\x{1EFFF}\x{1FB00}-\x{10FFFF}"
)
_DIFFERENT_WITH_CASE = _DIFFERENT + r"\x{A0}\x{2000}-\x{200A}\x{202F}\x{205F}\x{3000}"
# What options of a preprocessor show in: case, accents, unused pieces, control characters, lengths of words.
_PROBES = (
    "The DON'T-stop café naïve Ångström ΑΣ İstanbul ß ﬁne ①",
    "[CLS] [MASK] [UNK] [PAD] [unused1] ##ing ## #",
    "a\tb\nc\rd\x00e\x7ff\xadg\u200dh\ufeffi $9.99 x^2 ~`_",
    "電影 很好 영화 アニメ привет مرحبا नमस्ते ไทย 👍🏽",
    f"{'a' * 99} {'a' * 100} {'a' * 101} {'b' * 1000} {'é' * 50} {'é' * 51}",
    "",
    " ",
)
_PIECES_OF_A_PROBE = 64

_LOG = logging.getLogger(__name__)


def speed_up(tokenizer: Tokenizer, preprocess: str) -> Tokenizer:
    """The tokenizer, which load_tokenizer made of the folder `preprocess`, with a `tokenize` that is faster if it can.

    A batch with one of the code points above is tokenized by the preprocessor, as is any other if the tokens of the
    whole vocabulary or of _PROBES differ. Takes about a second for 30,000 pieces.
    """
    vocabulary = tokenization.read_vocabulary(preprocess)
    if vocabulary is None or tokenization.vocabulary_file_name(vocabulary).endswith(".model"):
        return tokenizer
    pieces = tokenization.vocabulary_pieces(preprocess)[: tokenizer.vocabulary_size]
    try:
        fast = tf_text.FastBertTokenizer(
            pieces, token_out_type=tf.int32, lower_case_nfd_strip_accents=tokenizer.lower_case
        )
    except RuntimeError as error:  # It does not take a piece twice, or of more than 256 bytes.
        _LOG.info("the preprocessor tokenizes, for no faster one takes its vocabulary: %s", describe_error(error))
        return tokenizer
    same = f"[^{_DIFFERENT if tokenizer.lower_case else _DIFFERENT_WITH_CASE}]*"

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def tokenize(texts: tf.Tensor) -> tf.RaggedTensor:
        suits = tf.reduce_all(tf.strings.regex_full_match(texts, same))
        return tf.cond(suits, lambda: fast.tokenize(texts), lambda: tokenizer.tokenize(texts))

    probes = tf.constant([*_PROBES, *_words_of(pieces)])
    probes = tf.boolean_mask(probes, tf.strings.regex_full_match(probes, same))
    ours, theirs = fast.tokenize(probes), tokenizer.tokenize(probes)
    for found, expected in ((ours.row_splits, theirs.row_splits), (ours.values, theirs.values)):
        if found.shape != expected.shape or not bool(tf.reduce_all(found == expected)):
            _LOG.info("the preprocessor tokenizes, for a faster one makes other tokens")
            return tokenizer
    return dataclasses.replace(tokenizer, tokenize=tokenize)


def _words_of(pieces: Sequence[str]) -> list[str]:
    """Texts of all pieces, each by itself and before the next one."""
    joined = (f"{a} {a}{b.removeprefix('##')}" for a, b in zip(pieces, [*pieces[1:], ""], strict=True))
    words = list(joined)
    return [" ".join(words[start : start + _PIECES_OF_A_PROBE]) for start in range(0, len(words), _PIECES_OF_A_PROBE)]
