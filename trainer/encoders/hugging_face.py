"""Write a BERT as a folder of Hugging Face: configuration, weights and tokenizer.

transformers loads it, and convert.read_hugging_face reads the same encoder from it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.numpy
import tf_keras

from trainer.encoders import architectures, bert_configs, vocabularies, weights
from trainer.errors import Problem

# The Hub's tokenizers make a word of more characters than this one unknown piece, as Hugging Face's do by default.
MAX_WORD_CHARACTERS = 100


def find_family_problem(name: str, architecture: architectures.Architecture) -> Problem | None:
    """Why the encoder `name` cannot be Hugging Face's BERT; None if it can."""
    if architecture.family != "bert":
        other = f"of the family {architecture.family}"
    elif architecture.embedding_width != architecture.hidden_size:
        other = f"whose embeddings are of another size ({architecture.embedding_width}) than its layers"
    elif architecture.norm_first:
        other = "whose layers normalize what they are given"
    else:
        return None
    required = "be hub for an encoder that is not a BERT, small BERT, BERT expert or ELECTRA base"
    return Problem("--format", required, f"hugging_face for {name}, {other}")


def write_folder(
    folder: Path,
    encoder: tf_keras.layers.Layer,
    architecture: architectures.Architecture,
    vocabulary: bytes,
    *,
    lower_case: bool,
) -> None:
    """Write config.json, model.safetensors, vocab.txt, tokenizer.json and tokenizer_config.json to a folder.

    `encoder` has the variables of native.build_encoder, `vocabulary` is WordPiece's vocab.txt.
    """
    (folder / "vocab.txt").write_bytes(vocabulary)
    pieces = vocabularies.read_vocabulary(folder / "vocab.txt")
    tensors = weights.to_hugging_face(encoder)
    # Not save_file, whose files nobody else may read.
    (folder / "model.safetensors").write_bytes(safetensors.numpy.save(tensors, metadata={"format": "pt"}))
    config = {"architectures": ["BertModel"], **bert_configs.describe_architecture(architecture)}
    config["pad_token_id"] = pieces.index(vocabularies.SPECIAL_PIECES["pad_token"])
    files = {
        "tokenizer.json": describe_tokenizer(pieces, lower_case=lower_case),
        "tokenizer_config.json": {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": lower_case,
            "tokenize_chinese_chars": True,
            "model_max_length": architecture.max_positions,
            **_special_pieces(pieces),
        },
        "config.json": config,
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _special_pieces(pieces: Sequence[str]) -> dict[str, str]:
    known = {**vocabularies.SPECIAL_PIECES, "mask_token": "[MASK]"}
    return {key: piece for key, piece in known.items() if piece in pieces}


def describe_tokenizer(pieces: Sequence[str], *, lower_case: bool) -> dict[str, Any]:
    """The tokenizer.json of a BERT with these pieces, by token id.

    Source of the format: https://huggingface.co/docs/tokenizers, and BertConverter in transformers.
    """
    special = _special_pieces(pieces)
    start, end = special["cls_token"], special["sep_token"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = sorted(
        ({"id": pieces.index(piece), "content": piece, **flags} for piece in special.values()), key=_token_id
    )
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,  # As lowercase has it.
            "lowercase": lower_case,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [_special_part(start, 0), _sequence_part("A", 0), _special_part(end, 0)],
            "pair": [
                *(_special_part(start, 0), _sequence_part("A", 0), _special_part(end, 0)),
                *(_sequence_part("B", 1), _special_part(end, 1)),
            ],
            "special_tokens": {
                piece: {"id": piece, "ids": [pieces.index(piece)], "tokens": [piece]} for piece in (start, end)
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": special["unk_token"],
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": MAX_WORD_CHARACTERS,
            "vocab": {piece: token_id for token_id, piece in enumerate(pieces)},
        },
    }


def _token_id(token: dict[str, Any]) -> int:
    return int(token["id"])


def _special_part(piece: str, type_id: int) -> dict[str, Any]:
    return {"SpecialToken": {"id": piece, "type_id": type_id}}


def _sequence_part(name: str, type_id: int) -> dict[str, Any]:
    return {"Sequence": {"id": name, "type_id": type_id}}
