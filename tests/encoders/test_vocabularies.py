import json

import pytest

from trainer.encoders import vocabularies
from trainer.errors import UserError

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "##ly"]


def write(folder, pieces):
    path = folder / "vocab.txt"
    path.write_bytes("".join(f"{piece}\n" for piece in pieces).encode())
    return path


def find_settings(folder, files):
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return vocabularies.read_tokenizer_settings(folder)


# --- The file -------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "x"])
def test_lines_are_pieces(tmp_path, end, last):
    path = tmp_path / "vocab.txt"
    path.write_bytes(f"a{end}\u2028{end}{last}".encode())
    assert vocabularies.read_vocabulary(path) == ["a", "\u2028", *filter(None, [last])]


def test_another_encoding_is_named(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_bytes("[PAD]\né".encode("latin-1"))
    with pytest.raises(UserError, match=rf"{path} must be UTF-8\. Received: byte 6 "):
        vocabularies.read_vocabulary(path)


@pytest.mark.parametrize(
    ("pieces", "rows", "added", "received"),
    [
        (PIECES, 7, 0, "8 lines"),
        (PIECES, 136, 0, "8 lines"),
        (PIECES, 140, 4, "8 lines"),
        ([*PIECES, "good", "bad"], 10, 0, "'good' in lines 6 and 9; 'bad' in lines 7 and 10"),
        ([p for p in PIECES if p not in ("[UNK]", "[SEP]")], 6, 0, "no [UNK], [SEP]"),
        ([], 8, 0, "no [UNK], [CLS], [SEP], [PAD]"),
    ],
)
def test_a_vocabulary_that_does_not_fit_is_named(tmp_path, pieces, rows, added, received):
    (problem,) = vocabularies.find_vocabulary_problems(tmp_path / "vocab.txt", pieces, rows, added)
    assert problem.setting == str(tmp_path / "vocab.txt")
    assert problem.received == received


@pytest.mark.parametrize(("rows", "added"), [(8, 0), (128, 0), (135, 0), (139, 4)])
def test_a_table_padded_to_a_round_size_is_accepted(tmp_path, rows, added):
    assert not vocabularies.find_vocabulary_problems(tmp_path / "vocab.txt", PIECES, rows, added)


# --- Case -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "piece", "lower_case"),
    [
        ({}, "the", True),
        ({}, "The", False),
        ({"tokenizer_config.json": {"model_max_length": 512}}, "The", False),
        ({"tokenizer_config.json": {"do_lower_case": None}}, "The", False),
        ({"tokenizer_config.json": {"do_lower_case": False}}, "the", False),
        ({"tokenizer_config.json": {"do_lower_case": True}}, "The", True),
        ({"tokenizer.json": {"normalizer": {"type": "BertNormalizer", "lowercase": False}}}, "the", False),
        (
            {
                "tokenizer.json": {"normalizer": {"type": "BertNormalizer", "lowercase": False}},
                "tokenizer_config.json": {"do_lower_case": True},
            },
            "the",
            True,
        ),
    ],
)
def test_the_case_is_that_of_the_files_or_of_the_vocabulary(tmp_path, files, piece, lower_case):
    settings = find_settings(tmp_path, files)
    assert vocabularies.is_lower_case(settings, [*PIECES, piece], tmp_path / "vocab.txt") is lower_case


def test_a_decision_from_the_vocabulary_is_said(tmp_path, caplog):
    caplog.set_level("INFO", "trainer")
    vocabularies.is_lower_case({}, [*PIECES, "The"], tmp_path / "vocab.txt")
    vocabularies.is_lower_case({"do_lower_case": True}, [*PIECES, "The"], tmp_path / "vocab.txt")
    (record,) = caplog.records
    assert "1 pieces with capitals (The)" in record.getMessage()


# --- What the Hub's preprocessors do not have -----------------------------------------------------


@pytest.mark.parametrize(
    ("file", "content", "setting", "received"),
    [
        ("tokenizer_config.json", {"do_lower_case": True, "strip_accents": False}, "strip_accents", "False"),
        ("tokenizer_config.json", {"strip_accents": False}, "strip_accents", "False"),
        ("tokenizer_config.json", {"tokenize_chinese_chars": False}, "tokenize_chinese_chars", "False"),
        ("tokenizer_config.json", {"do_basic_tokenize": False}, "do_basic_tokenize", "False"),
        ("tokenizer_config.json", {"do_lower_case": "yes"}, "do_lower_case", "yes"),
        (
            "tokenizer_config.json",
            {"tokenizer_class": "BertJapaneseTokenizer"},
            "tokenizer_class",
            "BertJapaneseTokenizer",
        ),
        ("config.json", {"tokenizer_class": "BertJapaneseTokenizer"}, "tokenizer_class", "BertJapaneseTokenizer"),
        ("tokenizer_config.json", {"cls_token": {"content": "<s>"}}, "cls_token", "<s>"),
        (
            "tokenizer.json",
            {"normalizer": {"type": "BertNormalizer", "lowercase": True, "strip_accents": False}},
            "strip_accents",
            "False",
        ),
        ("tokenizer.json", {"model": {"type": "BPE"}}, "tokenizer.json", "BPE with the prefix ##"),
        (
            "tokenizer.json",
            {"model": {"type": "WordPiece", "vocab": {p: i for i, p in enumerate([*PIECES[:-1], "x"])}}},
            "tokenizer.json",
            "2 pieces that differ, such as '##ly'",
        ),
    ],
)
def test_a_tokenizer_that_cannot_be_imported_is_named(tmp_path, file, content, setting, received):
    settings = find_settings(tmp_path, {file: content})
    (problem,) = vocabularies.find_tokenizer_problems(tmp_path, settings, PIECES)
    assert setting in problem.setting
    assert problem.received == received


def test_the_tokenizer_of_a_bert_is_accepted(tmp_path):
    files = {
        "tokenizer_config.json": {
            "cls_token": {"content": "[CLS]"},
            "unk_token": "[UNK]",
            "do_lower_case": True,
            "strip_accents": None,
            "tokenize_chinese_chars": True,
            "tokenizer_class": "BertTokenizer",
        },
        "tokenizer.json": {
            "normalizer": {"type": "BertNormalizer", "lowercase": True, "handle_chinese_chars": True},
            "model": {"type": "WordPiece", "vocab": {piece: i for i, piece in enumerate(PIECES)}},
        },
    }
    settings = find_settings(tmp_path, files)
    assert not vocabularies.find_tokenizer_problems(tmp_path, settings, PIECES)


def test_added_tokens_are_named(tmp_path, caplog):
    (tmp_path / "added_tokens.json").write_text('{"<user>": 8, "good": 5}')
    (tmp_path / "tokenizer_config.json").write_text('{"added_tokens_decoder": {"9": {"content": "<url>"}}}')
    assert vocabularies.find_added_tokens(tmp_path, PIECES) == ["<url>", "<user>"]
    (record,) = caplog.records
    assert "<url>, <user>" in record.getMessage()
