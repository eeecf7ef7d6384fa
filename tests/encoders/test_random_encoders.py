import re

import pytest
import tensorflow_hub as hub

from trainer.data import tokenization
from trainer.encoders import random_encoders

TINY = [preset for preset in random_encoders.RANDOM_PRESETS if preset.startswith("tiny")]


def test_the_presets_are_those_of_the_command():
    families = ["tiny", "tiny_bert_v2", "tiny_electra", "tiny_albert", "tiny_talking_heads", "bert_base", "bert_large"]
    assert list(random_encoders.RANDOM_PRESETS) == families
    assert random_encoders.RANDOM_PRESETS["bert_base"][1:] == (12, 768, 12, 30522)
    assert random_encoders.RANDOM_PRESETS["bert_large"][1:] == (24, 1024, 16, 30522)


@pytest.mark.parametrize("preset", TINY)
def test_a_seed_gives_the_same_values_and_another_seed_others(preset, tmp_path):
    first, again, other = (
        random_encoders.build_random_encoder(preset, tmp_path, seed).encoder.get_weights() for seed in (0, 0, 1)
    )
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert any((a != b).any() for a, b in zip(first, other, strict=True))
    assert any(w.shape[0] == 512 for w in first)  # positions


def test_another_preset_is_refused_with_those_that_are_there(tmp_path):
    message = r"--source=random:PRESET takes one of tiny, tiny_bert_v2, .*bert_large. Received: huge"
    with pytest.raises(ValueError, match=message):
        random_encoders.build_random_encoder("huge", tmp_path)


def test_a_wordpiece_vocabulary_has_its_size_and_no_piece_twice(tmp_path):
    pieces = random_encoders.write_wordpiece(tmp_path, 1024).read_text().split("\n")
    assert pieces.pop() == ""
    assert len(pieces) == len(set(pieces)) == 1024
    assert pieces[:5] == list(random_encoders.SPECIAL)
    assert all(pieces)


def test_a_vocabulary_without_room_is_refused_with_the_room_it_needs(tmp_path):
    with pytest.raises(
        ValueError, match=r"The vocabulary must have room for \d+ pieces. Received: a size of 300"
    ) as caught:
        random_encoders.write_wordpiece(tmp_path, 300)
    needed = int(re.search(r"for (\d+) pieces", str(caught.value))[1])
    assert len(random_encoders.write_wordpiece(tmp_path, needed).read_text().split()) == needed


def test_any_ascii_text_can_be_written_with_the_pieces(tiny):
    tokenizer = tokenization.load_tokenizer(str(tiny / "preprocess"))
    unknown = tokenizer.saved_model.tokenize(["好"]).to_list()[0][0][0]
    everything = "".join(map(chr, range(32, 127)))
    tokens = tokenizer.tokenize([everything, everything[::-1], " ".join(everything)]).to_list()
    assert all(len(row) > 50 and unknown not in row for row in tokens)


def test_a_sentencepiece_encoder_has_alberts_special_tokens(make_encoder):
    folder = make_encoder("tiny_albert")
    tokenizer = tokenization.load_tokenizer(str(folder / "preprocess"))
    assert tokenizer.vocabulary_size == 350
    assert tokenizer.special == tokenization.SpecialTokens(start=2, end=3, padding=0)
    saved = hub.load(str(folder / "encoder"))
    packed = tokenization.pack_inputs(
        tokenizer.tokenize(["The movie was great!"]), None, tokenizer.special, 16, "head", 16
    )
    assert saved(packed)["pooled_output"].shape == (1, 64)
