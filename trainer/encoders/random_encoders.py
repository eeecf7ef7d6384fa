"""Encoders of every family with random weights, for tests and benchmarks. Their vocabularies are common words."""

import string
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import tf_keras
from official.nlp.modeling import layers, networks

from trainer.encoders import native
from trainer.encoders.convert import ImportedEncoder
from trainer.errors import Problem, UsageError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

WORDS = """
the a an and or but if then of to in on at by for with from about into over after before is are was were be been being
have has had do does did not no yes it its this that these those i you he she we they me him her us them my your his
our their who what which when where why how all any both each few more most other some such only own same so than too
very can will just should now one two three first second new old good bad great little long high low right wrong big
small next last early late young important public private able man woman child world life hand part place case week
company system program question work government number night point home water room mother area money story fact month
lot study book eye job word business issue side kind head house service friend father power hour game line end member
law car city community name president team minute idea body information back parent face others level office door
health person art war history party result change morning reason research girl guy moment air teacher force education
film movie plot actor actress scene camera script director music character ending dialogue drama comedy horror action
romance thriller sequel cast performance role audience screen picture show series episode wonderful brilliant moving
superb delightful awful dull clumsy tedious dreadful terrible boring funny beautiful amazing excellent poor worst best
better worse love like hate enjoy watch see seen saw think thought feel felt make made find found give gave tell told
become leave left call try ask need seem help play run move live believe bring happen write sit stand lose pay meet
include continue set learn lead understand stop create speak read spend grow open walk win offer remember consider
appear buy wait serve die send expect build stay fall cut reach kill remain
""".split()  # noqa: SIM905

SUFFIXES = "##s ##ed ##ing ##er ##est ##ly ##ness ##ment ##ful ##less ##able ##tion ##y ##al ##ive".split()  # noqa: SIM905


def write_wordpiece(folder: Path, size: int) -> Path:
    """Write folder/vocab.txt, a WordPiece vocabulary of `size` pieces that can encode any ASCII text."""
    letters = string.ascii_lowercase + string.digits
    pieces = list(
        dict.fromkeys([*SPECIAL_TOKENS, *string.punctuation, *letters, *(f"##{c}" for c in letters), *SUFFIXES, *WORDS])
    )
    if len(pieces) > size:
        raise ValueError(f"size must be at least {len(pieces)}. Received: {size}.")
    pieces += [f"[unused{i}]" for i in range(size - len(pieces))]
    path = folder / "vocab.txt"
    path.write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return path


def write_sentencepiece(folder: Path, size: int) -> Path:
    """Write folder/pieces.model, a unigram SentencePiece model of `size` pieces with ALBERT's special tokens."""
    import sentencepiece  # only the ALBERT preset needs it

    words = list(dict.fromkeys(WORDS))
    sentences = [" ".join(words[(i * 7 + j * j) % len(words)] for j in range(12)) for i in range(2000)]
    sentences += [string.ascii_lowercase, string.digits, string.punctuation] * 5
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_prefix=str(folder / "pieces"),
        vocab_size=size,
        model_type="unigram",
        pad_id=0,
        unk_id=1,
        bos_id=-1,
        eos_id=-1,
        pad_piece="<pad>",
        unk_piece="<unk>",
        control_symbols=["[CLS]", "[SEP]", "[MASK]"],
        minloglevel=2,
    )
    return folder / "pieces.model"


def _build_bert(sizes: dict[str, int]) -> tf_keras.Model:
    return networks.BertEncoder(**sizes, inner_dim=4 * sizes["hidden_size"], dict_outputs=True)


def _build_bert_v2(sizes: dict[str, int]) -> tf_keras.layers.Layer:
    encoder = networks.BertEncoderV2(**sizes, inner_dim=4 * sizes["hidden_size"])
    encoder(encoder.inputs)  # creates the variables
    return encoder


def _build_electra(sizes: dict[str, int]) -> tf_keras.Model:
    hidden_size = sizes["hidden_size"]
    return networks.BertEncoder(**sizes, inner_dim=4 * hidden_size, embedding_width=hidden_size // 2, dict_outputs=True)


def _build_albert(sizes: dict[str, int]) -> tf_keras.Model:
    hidden_size = sizes["hidden_size"]
    return networks.AlbertEncoder(
        **sizes, intermediate_size=4 * hidden_size, embedding_width=hidden_size // 2, dict_outputs=True
    )


def _build_talking_heads(sizes: dict[str, int]) -> tf_keras.Model:
    def initializer() -> tf_keras.initializers.Initializer:
        return tf_keras.initializers.TruncatedNormal(stddev=0.02)

    hidden_size, activation = sizes["hidden_size"], native.ACTIVATIONS["gelu_tanh"]
    return networks.EncoderScaffold(
        embedding_cfg=dict(
            vocab_size=sizes["vocab_size"],
            type_vocab_size=sizes["type_vocab_size"],
            hidden_size=hidden_size,
            max_seq_length=sizes["max_sequence_length"],
            initializer=initializer(),
            dropout_rate=0.1,
        ),
        hidden_cls=layers.TransformerScaffold,
        hidden_cfg=dict(
            num_attention_heads=sizes["num_attention_heads"],
            inner_dim=4 * hidden_size,
            inner_activation=activation,
            attention_cls=layers.TalkingHeadsAttention,
            feedforward_cls=layers.GatedFeedforward,
            feedforward_cfg=dict(
                inner_dim=4 * hidden_size, inner_activation=activation, dropout=0.1, kernel_initializer=initializer()
            ),
            dropout_rate=0.1,
            attention_dropout_rate=0.1,
            kernel_initializer=initializer(),
        ),
        num_hidden_instances=sizes["num_layers"],
        pooled_output_dim=hidden_size,
        pooler_layer_initializer=initializer(),
        dict_outputs=True,
    )


class RandomPreset(NamedTuple):
    """What is built from random weights: a family, by the function that builds it, and its sizes."""

    build: Callable[[dict[str, int]], Any]
    layers: int
    hidden_size: int
    heads: int
    vocab_size: int


RANDOM_PRESETS = {
    "tiny": RandomPreset(_build_bert, 2, 64, 2, 1024),
    "tiny_bert_v2": RandomPreset(_build_bert_v2, 2, 64, 2, 1024),
    "tiny_electra": RandomPreset(_build_electra, 2, 64, 2, 1024),
    "tiny_albert": RandomPreset(_build_albert, 2, 64, 2, 350),
    "tiny_talking_heads": RandomPreset(_build_talking_heads, 2, 64, 2, 1024),
    "bert_base": RandomPreset(_build_bert, 12, 768, 12, 30522),
    "bert_large": RandomPreset(_build_bert, 24, 1024, 16, 30522),
}


def build_random_encoder(name: str, folder: Path, seed: int = 0) -> ImportedEncoder:
    """The encoder of a preset with random weights. Its vocabulary is written to `folder`.

    Raises UsageError if RANDOM_PRESETS has no preset of this name.
    """
    preset = RANDOM_PRESETS.get(name)
    if preset is None:
        raise UsageError(Problem("--source=random:PRESET", f"name one of {', '.join(RANDOM_PRESETS)}", name))
    tf_keras.utils.set_random_seed(seed)
    encoder = preset.build(
        dict(
            vocab_size=preset.vocab_size,
            hidden_size=preset.hidden_size,
            num_layers=preset.layers,
            num_attention_heads=preset.heads,
            max_sequence_length=512,
            type_vocab_size=2,
        )
    )
    write_vocabulary = write_sentencepiece if preset.build is _build_albert else write_wordpiece
    return ImportedEncoder(encoder, write_vocabulary(folder, preset.vocab_size), lower_case=True)
