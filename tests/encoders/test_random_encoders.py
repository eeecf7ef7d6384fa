import re

import pytest
import tensorflow_hub as hub

from trainer.data import tokenization
from trainer.encoders import random_encoders
from trainer.errors import UsageError

TINY_PRESETS = [preset for preset in random_encoders.RANDOM_PRESETS if preset.startswith("tiny")]


def test_presets_have_the_documented_names_and_sizes():
    families = ["bert", "electra", "albert", "talking_heads"]
    assert list(random_encoders.RANDOM_PRESETS) == [
        *("tiny", "tiny_bert_v2", *(f"tiny_{family}" for family in families[1:])),
        *(f"medium_{family}" for family in families),
        *("bert_base", "bert_large"),
    ]
    for name, sizes in {
        "medium_albert": (6, 256, 4, 350),
        "bert_base": (12, 768, 12, 30522),
        "bert_large": (24, 1024, 16, 30522),
    }.items():
        a = random_encoders.RANDOM_PRESETS[name].architecture
        assert (a.layers, a.hidden_size, a.heads, a.vocab_size) == sizes


@pytest.mark.parametrize("preset", TINY_PRESETS)
def test_values_depend_on_the_seed(preset, tmp_path):
    first, again, other = (
        random_encoders.build_random_encoder(preset, tmp_path, seed).encoder.get_weights() for seed in (0, 0, 1)
    )
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert any((a != b).any() for a, b in zip(first, other, strict=True))
    assert any(values.shape[0] == 512 for values in first)  # position embeddings


def test_an_unknown_preset_is_rejected_with_the_known_ones(tmp_path):
    with pytest.raises(UsageError) as caught:
        random_encoders.build_random_encoder("huge", tmp_path)
    (problem,) = caught.value.problems
    assert (problem.setting, problem.received) == ("--source=random:PRESET", "huge")
    assert all(name in problem.required for name in random_encoders.RANDOM_PRESETS)


def test_a_wordpiece_vocabulary_has_its_size_and_no_duplicates(tmp_path):
    pieces = random_encoders.write_wordpiece(tmp_path, 1024).read_text().split("\n")
    assert pieces.pop() == ""
    assert len(pieces) == len(set(pieces)) == 1024
    assert pieces[:5] == list(random_encoders.SPECIAL_TOKENS)
    assert all(pieces)


def test_a_wordpiece_vocabulary_has_a_smallest_size(tmp_path):
    with pytest.raises(ValueError, match=r"Received: 300") as caught:
        random_encoders.write_wordpiece(tmp_path, 300)
    smallest = int(re.search(r"at least (\d+)", str(caught.value))[1])
    assert len(random_encoders.write_wordpiece(tmp_path, smallest).read_text().split()) == smallest


def test_a_wordpiece_vocabulary_encodes_any_ascii_text(tiny):
    tokenizer = tokenization.load_tokenizer(str(tiny / "preprocess"))
    unknown = tokenizer.saved_model.tokenize(["好"]).to_list()[0][0][0]
    characters = "".join(map(chr, range(32, 127)))
    tokens = tokenizer.tokenize([characters, characters[::-1], " ".join(characters)]).to_list()
    assert all(len(row) > 50 and unknown not in row for row in tokens)


def test_a_sentencepiece_vocabulary_has_alberts_special_tokens(make_encoder):
    folder = make_encoder("tiny_albert")
    tokenizer = tokenization.load_tokenizer(str(folder / "preprocess"))
    assert tokenizer.vocabulary_size == 350
    assert tokenizer.special == tokenization.SpecialTokens(start=2, end=3, padding=0)
    saved = hub.load(str(folder / "encoder"))
    packed = tokenization.pack_inputs(
        tokenizer.tokenize(["The movie was great!"]), None, tokenizer.special, 16, "head", 16
    )
    assert saved(packed)["pooled_output"].shape == (1, 64)
