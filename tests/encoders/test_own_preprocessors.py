import shutil

import pytest
import tensorflow as tf
import tensorflow_hub as hub

from trainer.encoders import own_preprocessors
from trainer.errors import UserError

TEXTS = ["The MOVIE was great!", "Ein Text, mit Ümlauten?", ""]


def preprocess(folder) -> dict[str, list]:
    outputs = hub.KerasLayer(hub.load(str(folder)))(tf.constant(TEXTS))
    return {name: output.numpy().tolist() for name, output in outputs.items()}


@pytest.mark.parametrize("preset", ["tiny", "tiny_albert"])
def test_a_preprocessor_computes_what_the_encoders_own_does(make_encoder, preset):
    encoder = make_encoder(preset)
    folder = own_preprocessors.build_preprocessor(str(encoder / "encoder"), preset)
    assert preprocess(folder) == preprocess(encoder / "preprocess")


def save_encoder(folder, pieces: str, lower_case: bool | None) -> str:
    """What an encoder has for its texts: a vocabulary and, unless None, the variable that says their casing."""
    (folder / "vocab.txt").write_text(pieces)
    root = tf.train.Checkpoint()
    root.vocab_file = tf.saved_model.Asset(str(folder / "vocab.txt"))
    if lower_case is not None:
        root.do_lower_case = tf.Variable(lower_case, trainable=False)
    tf.saved_model.save(root, str(folder / "encoder"))
    return str(folder / "encoder")


SPECIAL = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n"


@pytest.mark.parametrize(
    ("pieces", "lower_case", "same"),
    [
        ("the\n", True, True),
        ("the\n", False, False),
        ("the\n", None, True),
        ("the\nThe\n", None, False),
    ],
)
def test_casing_is_that_of_the_variable_or_else_of_the_vocabulary(tmp_path, pieces, lower_case, same):
    encoder = save_encoder(tmp_path, SPECIAL + pieces, lower_case)
    layer = hub.KerasLayer(hub.load(own_preprocessors.build_preprocessor(encoder, "mine")))
    upper, lower = layer(tf.constant(["The", "the"]))["input_word_ids"].numpy()[:, 1]
    assert bool(upper == lower) is same
    assert lower == 5


def test_a_vocabulary_without_special_pieces_is_refused(tmp_path):
    encoder = save_encoder(tmp_path, "[PAD]\n[UNK]\nthe\n", True)
    with pytest.raises(UserError, match=r"--preprocess .*Received: none for mine.*\[CLS\], \[SEP\]"):
        own_preprocessors.build_preprocessor(encoder, "mine")


def test_without_one_vocabulary_there_is_no_preprocessor(tmp_path):
    encoder = save_encoder(tmp_path, SPECIAL, True)
    shutil.copy(f"{encoder}/assets/vocab.txt", f"{encoder}/assets/other.txt")
    assert own_preprocessors.build_preprocessor(encoder, "mine") is None
    shutil.rmtree(f"{encoder}/assets")
    assert own_preprocessors.build_preprocessor(encoder, "mine") is None
