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


# --- tokenizer.json alone -------------------------------------------------------------------------


def write_tokenizer(folder, **model):
    vocab = {piece: i for i, piece in reversed(list(enumerate(PIECES)))}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"type": "WordPiece", "vocab": vocab, **model}}))


def test_a_vocabulary_is_taken_from_tokenizer_json(tmp_path):
    write_tokenizer(tmp_path)
    (tmp_path / "scratch").mkdir()
    path = vocabularies.find_vocabulary_file(tmp_path, tmp_path / "scratch")
    assert path == tmp_path / "scratch" / "vocab.txt"
    assert vocabularies.read_vocabulary(path) == PIECES
    assert vocabularies.find_vocabulary_file(path.parent, tmp_path) == path


@pytest.mark.parametrize(
    ("model", "received"),
    [
        (dict(type="Unigram", vocab=[["a", -1.0]]), "a model of type Unigram"),
        (dict(vocab={"a": 0, "b": 2}), "'b' with the number 2"),
        (dict(vocab={"a": 1}), "'a' with the number 1"),
        (dict(vocab={"a": 0, "b": 0}), "'b' with the number 0"),
        (dict(vocab={"a\nb": 0}), "with the number 0"),
        (dict(vocab={"a": "0"}), "a model of type WordPiece"),
        (dict(vocab=None), "a model of type WordPiece"),
    ],
)
def test_a_vocabulary_without_a_line_for_each_number_is_refused(tmp_path, model, received):
    write_tokenizer(tmp_path, **model)
    with pytest.raises(UserError) as caught:
        vocabularies.find_vocabulary_file(tmp_path, tmp_path)
    assert received in caught.value.problems[0].received


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


def template(*names):
    """The post-processor of a tokenizer.json that puts a text, A, among special tokens."""
    kinds = ({"Sequence" if name == "A" else "SpecialToken": {"id": name, "type_id": 0}} for name in names)
    return {"type": "TemplateProcessing", "single": list(kinds)}


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
        ("tokenizer.json", {"model": {"type": "BPE"}}, "type of the model", "BPE"),
        ("tokenizer.json", {"model": {"continuing_subword_prefix": "_"}}, "continuing_subword_prefix", "_"),
        ("tokenizer.json", {"model": {"unk_token": "<unk>"}}, "unk_token of the model", "<unk>"),
        ("tokenizer.json", {"normalizer": {"type": "BertNormalizer", "clean_text": False}}, "clean_text", "False"),
        ("tokenizer.json", {"normalizer": {"type": "Lowercase"}}, "normalizer", "Lowercase"),
        ("tokenizer.json", {"normalizer": {"type": "Sequence", "normalizers": []}}, "normalizer", "Sequence"),
        ("tokenizer.json", {"normalizer": None}, "normalizer", "none"),
        ("tokenizer.json", {"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer", "Whitespace"),
        ("tokenizer.json", {"post_processor": {"type": "ByteLevel"}}, "post_processor", "ByteLevel"),
        ("tokenizer.json", {"post_processor": template("[CLS]", "[SEP]", "A")}, "post_processor", "[CLS] [SEP] A"),
        ("tokenizer.json", {"post_processor": {"type": "TemplateProcessing"}}, "post_processor", ""),
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
            "normalizer": {
                "type": "BertNormalizer",
                "lowercase": True,
                "handle_chinese_chars": True,
                "clean_text": True,
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": template("[CLS]", "A", "[SEP]"),
            "model": {"type": "WordPiece", "vocab": {piece: i for i, piece in enumerate(PIECES)}},
        },
    }
    settings = find_settings(tmp_path, files)
    assert not vocabularies.find_tokenizer_problems(tmp_path, settings, PIECES)


def test_added_tokens_are_named(tmp_path, caplog):
    (tmp_path / "added_tokens.json").write_text('{"<user>": 8, "good": 5}')
    (tmp_path / "tokenizer_config.json").write_text('{"added_tokens_decoder": {"9": {"content": "<url>"}}}')
    (tmp_path / "tokenizer.json").write_text('{"added_tokens": [{"id": 10, "content": "<tag>"}, {"content": "bad"}]}')
    assert vocabularies.find_added_tokens(tmp_path, PIECES) == ["<tag>", "<url>", "<user>"]
    (record,) = caplog.records
    assert "<tag>, <url>, <user>" in record.getMessage()
