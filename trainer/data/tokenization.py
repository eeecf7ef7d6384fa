"""Text to an encoder's inputs: tokenize, truncate, pack. Preparation, training and the export share it.

Shapes: B rows of a batch, (T) tokens of a text (ragged), W width: the tokens of a padded row.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tensorflow_hub as hub
import tensorflow_text  # noqa: F401  registers the tokenizers' operators
from tensorflow.core.protobuf import saved_model_pb2

from trainer.errors import Problem, UserError, describe_error
from trainer.storage import fs

# Which tokens of a text that is too long are kept: its first, its last, or half of them from each end.
TRUNCATIONS = ("head", "tail", "head_tail")


@dataclasses.dataclass(frozen=True)
class SpecialTokens:
    """The token ids of [CLS], [SEP] and [PAD], or what the encoder has in their place."""

    start: int
    end: int
    padding: int


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A loaded Hub preprocessor. `tokenize`: string [B] -> ragged int32 [B, (T)]."""

    saved_model: Any  # It owns the vocabulary's table, and has to live as long as `tokenize` is used.
    tokenize: Callable[[tf.Tensor], tf.RaggedTensor]
    special: SpecialTokens
    vocabulary_size: int
    lower_case: bool


def load_tokenizer(folder: str) -> Tokenizer:
    """Load preprocess/, a Hub preprocessing SavedModel. Raises UserError if the folder holds none, or a damaged one."""
    subject = "A preprocessor's folder"
    if not fs.exists(fs.join(folder, "saved_model.pb")):
        raise UserError(Problem(subject, "hold saved_model.pb", folder))
    local = fs.tensorflow_path(folder)
    try:
        saved = hub.load(local)
    except Exception as error:  # TensorFlow raises errors of a dozen types.
        received = f"{folder}, which fails to load with {describe_error(error)}"
        raise UserError(Problem(subject, "hold a complete SavedModel", received)) from None
    if not hasattr(getattr(saved, "tokenize", None), "get_special_tokens_dict"):
        received = f"{folder}, without the functions tokenize and tokenize.get_special_tokens_dict"
        raise UserError(Problem(subject, "hold a preprocessor for text in the Hub's format", received))

    def tokenize(texts: tf.Tensor) -> tf.RaggedTensor:
        tokens = saved.tokenize(texts)
        return tf.cast(tokens.merge_dims(1, -1) if tokens.ragged_rank > 1 else tokens, tf.int32)

    ids = {name: int(value) for name, value in saved.tokenize.get_special_tokens_dict().items()}
    if missing := [name for name in ("start_of_sequence_id", "end_of_segment_id", "padding_id") if name not in ids]:
        received = f"{folder}, whose vocabulary lacks them"
        raise UserError(Problem(subject, f"give the special tokens {', '.join(missing)}", received))
    upper, lower = tokenize(tf.constant(["The Movie Was GREAT", "the movie was great"]))
    return Tokenizer(
        saved_model=saved,
        tokenize=tokenize,
        special=SpecialTokens(
            start=ids["start_of_sequence_id"], end=ids["end_of_segment_id"], padding=ids["padding_id"]
        ),
        vocabulary_size=ids["vocab_size"],
        lower_case=upper.shape == lower.shape and bool(tf.reduce_all(upper == lower)),
    )


def read_vocabulary(folder: str) -> bytes | None:
    """The vocabulary inside an encoder's or preprocessor's SavedModel: WordPiece's vocab.txt or a SentencePiece model.

    None if the SavedModel has none. A vocabulary is an asset, except a preprocessor's SentencePiece model, which is an
    attribute in the graph.
    """
    assets = fs.join(folder, "assets")
    names = fs.list_names(assets) if fs.is_folder(assets) else []
    vocabularies = [name for name in names if name.endswith((".txt", ".model", ".vocab"))]
    if len(vocabularies) == 1:
        return fs.read_bytes(fs.join(assets, vocabularies[0]))
    saved = saved_model_pb2.SavedModel.FromString(fs.read_bytes(fs.join(folder, "saved_model.pb")))
    for meta in saved.meta_graphs:
        nodes = [*meta.graph_def.node, *(n for f in meta.graph_def.library.function for n in f.node_def)]
        for node in nodes:
            if node.op == "SentencepieceOp":
                return bytes(node.attr["model"].s)
    return None


def vocabulary_sha256(folder: str) -> str | None:
    """The SHA-256 of read_vocabulary, in hexadecimal; None if the SavedModel has no vocabulary."""
    data = read_vocabulary(folder)
    return None if data is None else hashlib.sha256(data).hexdigest()


def special_token_count(texts: int) -> int:
    """The number of special tokens of one text or a pair: [CLS] a [SEP], or [CLS] a [SEP] b [SEP]."""
    return texts + 1


def truncate(tokens: tf.RaggedTensor, budget: tf.Tensor, truncation: str) -> tf.RaggedTensor:
    """Truncate each row to `budget` tokens, as one of TRUNCATIONS says.

    `tokens`: int32 [B, (T)]; `budget`: int32 [] or [B]. Returns int32 [B, (T or budget)].
    """
    lengths = tf.cast(tokens.row_lengths(), tf.int32)
    kept = tf.minimum(lengths, budget)
    from_start = {"head": kept, "tail": tf.zeros_like(kept), "head_tail": (kept + 1) // 2}[truncation]
    positions = tf.ragged.range(kept)  # int32 [B, (kept)]: 0, 1, 2, ...
    row = positions.value_rowids()
    skipped = tf.where(positions.values >= tf.gather(from_start, row), tf.gather(lengths - kept, row), 0)
    starts = tf.cast(tf.gather(tokens.row_starts(), row), tf.int32)
    return positions.with_values(tf.gather(tokens.values, starts + positions.values + skipped))


def pack_inputs(
    tokens: tf.RaggedTensor,
    tokens_b: tf.RaggedTensor | None,
    special: SpecialTokens,
    seq_length: int,
    truncation: str,
    width: tf.Tensor | int | None = None,
) -> dict[str, tf.Tensor]:
    """Encoder inputs of one text or a pair, `tokens` and `tokens_b`: int32 ragged [B, (T)].

    Returns input_word_ids, input_mask and input_type_ids, int32 [B, W]. W is `width`, or the longest row if None. A row
    has at most `seq_length` tokens, special tokens included. A pair that is too long is truncated as the Hub's
    preprocessors do: the longer text first, until both have the same length, then both in turn.
    """
    batch = tokens.nrows(tf.int32)

    def column(value: int) -> tf.RaggedTensor:
        return tf.RaggedTensor.from_tensor(tf.fill([batch, 1], value))

    start, end = column(special.start), column(special.end)
    if tokens_b is None:
        words = tf.concat(
            [start, truncate(tokens, tf.constant(seq_length - special_token_count(1)), truncation), end], axis=1
        )
        types = tf.zeros_like(words)
    else:
        budget = seq_length - special_token_count(2)
        lengths_a, lengths_b = (tf.cast(t.row_lengths(), tf.int32) for t in (tokens, tokens_b))
        budget_a = tf.minimum(lengths_a, tf.maximum((budget + 1) // 2, budget - lengths_b))
        a = tf.concat([start, truncate(tokens, budget_a, truncation), end], axis=1)
        b = tf.concat([truncate(tokens_b, budget - budget_a, truncation), end], axis=1)
        words = tf.concat([a, b], axis=1)
        types = tf.concat([tf.zeros_like(a), tf.ones_like(b)], axis=1)
    shape = None if width is None else tf.cast(tf.stack([-1, width]), tf.int64)
    return {
        "input_word_ids": words.to_tensor(special.padding, shape=shape),
        "input_mask": tf.ones_like(words).to_tensor(shape=shape),
        "input_type_ids": types.to_tensor(shape=shape),
    }


def vocabulary_file_name(vocabulary: bytes) -> str:
    """What a vocabulary's file is called: vocab.txt of WordPiece, pieces.model of SentencePiece."""
    # A SentencePiece model is a serialized message whose first field holds the pieces.
    return "pieces.model" if vocabulary.startswith(b"\n") else "vocab.txt"


def vocabulary_pieces(preprocess: str) -> list[str]:
    """The pieces by token id, of WordPiece's vocab.txt or of a SentencePiece model."""
    data = read_vocabulary(preprocess)
    assert data is not None  # Preparation refuses a preprocessor without a vocabulary.
    if vocabulary_file_name(data).endswith(".model"):
        import sentencepiece

        model = sentencepiece.SentencePieceProcessor(model_proto=data)
        return [model.id_to_piece(i) for i in range(model.get_piece_size())]
    return data.decode("utf-8").split("\n")
