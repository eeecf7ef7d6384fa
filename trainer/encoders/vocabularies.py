"""Read a BERT's vocabulary, of vocab.txt or tokenizer.json, and what its folder says of the tokenizer."""

import logging
from pathlib import Path
from typing import Any

from trainer.encoders import source_files
from trainer.errors import Problem, UserError

# The Hub's preprocessors take these names for granted.
SPECIAL_PIECES = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
# An embedding table may have rows without a piece, which make its size a multiple of up to 128.
MAX_ROWS_WITHOUT_PIECE = 127
# The classes of tokenizers that do what the Hub's preprocessors do.
_TOKENIZER_CLASSES = tuple(
    f"{name}Tokenizer{suffix}" for name in ("Bert", "DistilBert", "Electra") for suffix in ("", "Fast")
) + ("PreTrainedTokenizerFast", "TokenizersBackend")

# The parts of a tokenizer.json -> the types that do what they do.
_PARTS = {
    "normalizer": ("BertNormalizer",),
    "pre_tokenizer": ("BertPreTokenizer",),
    "post_processor": ("TemplateProcessing", "BertProcessing"),
}

_LOG = logging.getLogger(__name__)


def find_vocabulary_file(folder: Path, scratch: Path) -> Path:
    """folder/vocab.txt, or a vocab.txt in `scratch` with the pieces of folder/tokenizer.json.

    Raises UserError if that holds no WordPiece vocabulary whose pieces are numbered from 0 on, a line for each.
    """
    if (folder / "vocab.txt").is_file():
        return folder / "vocab.txt"
    path = folder / "tokenizer.json"
    model = source_files.read_json(path).get("model")
    numbers = model.get("vocab") if isinstance(model, dict) else None
    required = "hold a WordPiece model whose pieces are numbered from 0 on, where there is no vocab.txt"
    if not isinstance(numbers, dict) or any(type(number) is not int for number in numbers.values()):
        raise UserError(Problem(str(path), required, f"a model of type {_type_of(model)}"))  # Unigram's is a list.
    pieces = sorted(numbers, key=lambda piece: numbers[piece])
    if wrong := [piece for i, piece in enumerate(pieces) if numbers[piece] != i or set(piece) & {"\n", "\r"}]:
        raise UserError(Problem(str(path), required, f"{wrong[0]!r} with the number {numbers[wrong[0]]}"))
    (scratch / "vocab.txt").write_bytes("".join(f"{piece}\n" for piece in pieces).encode())
    return scratch / "vocab.txt"


def read_vocabulary(path: Path) -> list[str]:
    """The pieces by token id: the lines of vocab.txt. Raises UserError if it is not UTF-8."""
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(Problem(str(path), "be UTF-8", f"byte {error.start} is not")) from None
    # TensorFlow ends a line at \n, and drops \r. Other line separators of Unicode are pieces.
    lines = text.replace("\r", "").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def find_vocabulary_problems(path: Path, pieces: list[str], rows: int, added: int = 0) -> list[Problem]:
    """What is wrong with a vocabulary for an embedding table of `rows` rows, `added` of them for other tokens."""
    problems = []
    if len(pieces) > rows:
        required = f"have at most a line for each of the {rows} rows of the embedding table"
        problems.append(Problem(str(path), required, f"{len(pieces)} lines"))
    if len(pieces) < rows - added - MAX_ROWS_WITHOUT_PIECE:
        required = f"have a line for each of the {rows} rows of the embedding table"
        advice = "If the table really has rows without a piece, add lines [unused0], [unused1], ... to the end."
        problems.append(Problem(str(path), required, f"{len(pieces)} lines", advice))
    if missing := [piece for piece in SPECIAL_PIECES.values() if piece not in pieces]:
        required = f"have the lines {', '.join(SPECIAL_PIECES.values())}"
        problems.append(Problem(str(path), required, f"no {', '.join(missing)}"))
    first_lines: dict[str, int] = {}
    repeated = [
        f"{piece!r} in lines {first} and {line}"
        for line, piece in enumerate(pieces, 1)
        if (first := first_lines.setdefault(piece, line)) != line
    ]
    if repeated:
        problems.append(Problem(str(path), "have every piece once", "; ".join(repeated[:3])))
    return problems


def find_capitals(pieces: list[str]) -> list[str]:
    """The pieces with capital letters: only a cased vocabulary has any. Names in brackets, as [UNK], do not count."""
    return [piece for piece in pieces if piece != piece.lower() and not piece.startswith("[")]


def decide_lower_case(pieces: list[str], path: Path) -> bool:
    """Whether texts are lower-cased, decided from the vocabulary, where no file says it."""
    capitals = find_capitals(pieces)
    _LOG.info(
        "note: no file says whether texts are lower-cased; %s has %d pieces with capitals%s, so that they %s",
        path,
        len(capitals),
        f" ({', '.join(capitals[:3])})" if capitals else "",
        "keep their case" if capitals else "are lower-cased",
    )
    return not capitals


def read_tokenizer_settings(folder: Path) -> dict[str, Any]:
    """The keys of tokenizer_config.json, and those that tokenizer.json and config.json have for them.

    Raises UserError if one of the files that exist is damaged.
    """
    config, own, fast = (
        source_files.read_json(folder / name) if (folder / name).is_file() else {}
        for name in ("config.json", "tokenizer_config.json", "tokenizer.json")
    )
    settings = {"tokenizer_class": config.get("tokenizer_class")}
    normalizer: Any = fast.get("normalizer")
    if isinstance(normalizer, dict) and normalizer.get("type") == "BertNormalizer":
        names = {"lowercase": "do_lower_case", "handle_chinese_chars": "tokenize_chinese_chars"}
        settings |= {str(names.get(key, key)): value for key, value in normalizer.items()}
    return settings | own


def is_lower_case(settings: dict[str, Any], pieces: list[str], path: Path) -> bool:
    """Whether texts are lower-cased, as read_tokenizer_settings has it, or else as the vocabulary shows."""
    lower_case = settings.get("do_lower_case")
    return decide_lower_case(pieces, path) if lower_case is None else bool(lower_case)


def find_added_tokens(folder: Path, pieces: list[str]) -> list[str]:
    """The tokens that a folder's files add to the vocabulary. The preprocessor does not know them: a note says so."""
    added: list[str] = []
    if (path := folder / "added_tokens.json").is_file():
        added += source_files.read_json(path)
    if (path := folder / "tokenizer_config.json").is_file():
        decoder = source_files.read_json(path).get("added_tokens_decoder") or {}
        added += [_content(token) for token in decoder.values()]
    if (path := folder / "tokenizer.json").is_file():
        added += [_content(token) for token in source_files.read_json(path).get("added_tokens") or []]
    added = sorted(set(added) - set(pieces))
    if added:
        _LOG.warning(
            "%d tokens were added to the vocabulary of %s. Texts that contain them are split as other texts are: %s",
            len(added),
            folder,
            ", ".join(added[:5]),
        )
    return added


def _content(token: Any) -> str:
    """A token in a tokenizer's configuration: a string, or an object with its content."""
    return str(token.get("content", "") if isinstance(token, dict) else token)


def find_tokenizer_problems(folder: Path, settings: dict[str, Any], pieces: list[str]) -> list[Problem]:
    """What read_tokenizer_settings found that the Hub's preprocessors do not have."""
    lower_case = settings.get("do_lower_case")
    supported: dict[str, tuple[Any, ...]] = {
        "do_lower_case": (True, False),
        "strip_accents": (not find_capitals(pieces) if lower_case is None else lower_case,),
        "tokenize_chinese_chars": (True,),
        "clean_text": (True,),
        "do_basic_tokenize": (True,),
        "tokenizer_class": _TOKENIZER_CLASSES,
        **{key: (piece,) for key, piece in SPECIAL_PIECES.items()},
    }
    problems = []
    for key, values in supported.items():
        value = _content(settings[key]) if key in SPECIAL_PIECES and settings.get(key) else settings.get(key)
        if value is not None and value not in values:
            problems.append(
                Problem(
                    f"{key} of the tokenizer in {folder}",
                    f"be {' or '.join(map(str, values))}",
                    str(value),
                    "The Hub's preprocessors have no other. Remove the key from a copy of the folder to use theirs.",
                )
            )
    path = folder / "tokenizer.json"
    fast = source_files.read_json(path) if path.is_file() else {}
    return problems + _find_part_problems(path, fast) + _find_model_problems(path, fast.get("model"), pieces)


def _type_of(part: Any) -> str:
    """The type of a part of a tokenizer.json."""
    return str(part.get("type")) if isinstance(part, dict) else "none"


def _find_part_problems(file: Path, fast: dict[str, Any]) -> list[Problem]:
    """What the parts of a tokenizer.json do with a text before and behind its model that BERT's do not."""
    problems = [
        Problem(f"{part} in {file}", f"be {' or '.join(types)}", _type_of(fast[part]))
        for part, types in _PARTS.items()
        if part in fast and _type_of(fast[part]) not in types
    ]
    processor = fast.get("post_processor") or {}
    if _type_of(processor) == "TemplateProcessing":
        single = [str(part.get("id")) for item in processor.get("single") or [] for part in item.values()]
        if single != ["[CLS]", "A", "[SEP]"]:
            problems.append(Problem(f"post_processor in {file}", "be [CLS] A [SEP] for a text", " ".join(single)))
    return problems


def _find_model_problems(file: Path, model: Any, pieces: list[str]) -> list[Problem]:
    """What the model in a tokenizer.json has that vocab.txt and the Hub's WordPiece do not have."""
    if not isinstance(model, dict):
        return []
    for key, value in {"type": "WordPiece", "continuing_subword_prefix": "##", "unk_token": "[UNK]"}.items():
        if model.get(key, value) != value:
            return [Problem(f"{key} of the model in {file}", f"be {value}", str(model[key]))]
    if different := set(model.get("vocab", {}).items()) ^ {(piece, i) for i, piece in enumerate(pieces)}:
        names = sorted({piece for piece, _ in different})
        received = f"{len(names)} pieces that differ, such as {names[0]!r}"
        return [Problem(str(file), "have the vocabulary of vocab.txt", received, "Import a folder whose files agree.")]
    return []
