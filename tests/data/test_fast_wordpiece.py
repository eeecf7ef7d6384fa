import dataclasses
import random
import re
import unicodedata

import pytest
import tensorflow as tf
from official.nlp.tools import export_tfhub_lib

from trainer.data import fast_wordpiece, tokenization

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="module")
def make_preprocess(tmp_path_factory):
    """A function (pieces, lower_case) -> the folder of a preprocessor as the Hub's are made."""

    def make(pieces, lower_case):
        folder = tmp_path_factory.mktemp("preprocess")
        (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *pieces]), encoding="utf-8")
        export_tfhub_lib.export_preprocessing(
            str(folder / "out"),
            vocab_file=str(folder / "vocab.txt"),
            do_lower_case=lower_case,
            tokenize_with_offsets=False,
            default_seq_length=16,
        )
        return str(folder / "out")

    return make


@pytest.fixture(scope="module", params=[True, False], ids=["lower", "cased"])
def tokenizers(request, make_preprocess):
    """(the preprocessor's tokenizer, the faster one, the code points that it takes).

    The vocabulary has every character, so that two that are not mapped alike give two tokens.
    """
    pattern = fast_wordpiece._DIFFERENT if request.param else fast_wordpiece._DIFFERENT_WITH_CASE
    different = re.compile("[" + re.sub(r"\\x\{(\w+)\}", lambda found: chr(int(found[1], 16)), pattern) + "]")
    points = [chr(c) for c in range(1, 0x110000) if not 0xD800 <= c < 0xE000]
    points = [c for c in points if not different.match(c)]
    pieces = [c for c in points if unicodedata.category(c)[0] not in "ZC" or unicodedata.category(c) == "Cf"]
    preprocess = make_preprocess([*pieces, *(f"##{c}" for c in pieces)], request.param)
    tokenizer = tokenization.load_tokenizer(preprocess)
    fast = fast_wordpiece.speed_up(tokenizer, preprocess)
    assert fast is not tokenizer
    return tokenizer, fast, points


def assert_same_tokens(tokenizer, fast, texts):
    ours, theirs = fast.tokenize(tf.constant(texts)), tokenizer.tokenize(tf.constant(texts))
    different = [text for text, a, b in zip(texts, ours.to_list(), theirs.to_list(), strict=True) if a != b]
    assert not different


def test_every_code_point_has_the_preprocessors_tokens(tokenizers):
    tokenizer, fast, points = tokenizers
    assert len(points) > 62_000
    texts = [" ".join(f"{c} a{c}b" for c in points[start : start + 64]) for start in range(0, len(points), 64)]
    assert_same_tokens(tokenizer, fast, texts)


def test_texts_of_any_code_points_have_the_preprocessors_tokens(tokenizers):
    tokenizer, fast, points = tokenizers
    rng = random.Random(0)
    marks = [*(c for c in points if unicodedata.combining(c)), *"ab " * 50]
    for characters, length in ((points, 60), (marks, 12), ([*map(chr, range(1, 128))], 300)):
        texts = ["".join(rng.choices(characters, k=rng.randint(1, length))) for _ in range(5_000)]
        assert_same_tokens(tokenizer, fast, texts)


def test_words_of_any_length_have_the_preprocessors_tokens(tokenizers):
    tokenizer, fast, _ = tokenizers
    assert_same_tokens(tokenizer, fast, [c * n for c in "aéﬁ電٪" for n in (*range(20, 120), 10_000)] + ["", " "])


def test_other_texts_have_the_preprocessors_tokens(tokenizers):
    tokenizer, fast, _ = tokenizers
    for text in ("one\u2028two", "one\u1680two", "a\u302e\u302fb", "a\u00a0b", "𝅘𝅥𝅮 a\U0001d165\U0001d16db"):
        assert_same_tokens(tokenizer, fast, [text, "a text beside it"])


def test_sentencepiece_stays_as_it_is(make_encoder):
    folder = str(make_encoder("tiny_albert") / "preprocess")
    tokenizer = tokenization.load_tokenizer(folder)
    assert fast_wordpiece.speed_up(tokenizer, folder) is tokenizer


def test_a_preprocessor_of_other_options_stays_as_it_is(tiny):
    folder = str(tiny / "preprocess")
    tokenizer = tokenization.load_tokenizer(folder)
    assert fast_wordpiece.speed_up(tokenizer, folder) is not tokenizer
    other = dataclasses.replace(tokenizer, lower_case=False)  # As one that folds case, but keeps accents, would seem.
    assert fast_wordpiece.speed_up(other, folder) is other


def test_a_vocabulary_that_is_not_taken_stays_with_the_preprocessor(make_preprocess, caplog):
    folder = make_preprocess(["a", 300 * "a"], lower_case=True)
    tokenizer = tokenization.load_tokenizer(folder)
    with caplog.at_level("INFO"):
        assert fast_wordpiece.speed_up(tokenizer, folder) is tokenizer
    assert "exceeds the max supported" in caplog.text
