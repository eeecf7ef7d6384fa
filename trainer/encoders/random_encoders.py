"""Encoders of every family with random weights, for tests and benchmarks. Their vocabularies are common words."""

import string
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import tf_keras
from official.nlp.modeling import layers, networks

from trainer.encoders.architectures import ACTIVATIONS, Architecture
from trainer.encoders.builders import STDDEV, bert_options, initializer
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


# --- How the Hub's encoders were built --------------------------------------------------------------


def _build_bert(architecture: Architecture, stddev: float) -> tf_keras.Model:
    return networks.BertEncoder(**bert_options(architecture, stddev), dict_outputs=True)


def _build_bert_v2(architecture: Architecture, stddev: float) -> tf_keras.layers.Layer:
    encoder = networks.BertEncoderV2(**bert_options(architecture, stddev))
    encoder(encoder.inputs)  # creates the variables
    return encoder


def _build_albert(architecture: Architecture, stddev: float) -> tf_keras.Model:
    return networks.AlbertEncoder(
        vocab_size=architecture.vocab_size,
        embedding_width=architecture.embedding_width,
        hidden_size=architecture.hidden_size,
        num_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        max_sequence_length=architecture.max_positions,
        type_vocab_size=architecture.token_types,
        intermediate_size=architecture.inner_size,
        activation=ACTIVATIONS[architecture.activation],
        dropout_rate=architecture.dropout,
        attention_dropout_rate=architecture.attention_dropout,
        initializer=initializer(stddev),
        dict_outputs=True,
    )


def _build_talking_heads(architecture: Architecture, stddev: float) -> tf_keras.Model:
    activation = ACTIVATIONS[architecture.activation]
    return networks.EncoderScaffold(
        embedding_cfg=dict(
            vocab_size=architecture.vocab_size,
            type_vocab_size=architecture.token_types,
            hidden_size=architecture.hidden_size,
            max_seq_length=architecture.max_positions,
            initializer=initializer(stddev),
            dropout_rate=architecture.dropout,
        ),
        hidden_cls=layers.TransformerScaffold,
        hidden_cfg=dict(
            num_attention_heads=architecture.heads,
            inner_dim=architecture.inner_size,
            inner_activation=activation,
            attention_cls=layers.TalkingHeadsAttention,
            feedforward_cls=layers.GatedFeedforward,
            feedforward_cfg=dict(
                inner_dim=architecture.inner_size,
                inner_activation=activation,
                dropout=architecture.dropout,
                apply_output_layer_norm=not architecture.norm_first,
                kernel_initializer=initializer(stddev),
            ),
            dropout_rate=architecture.dropout,
            attention_dropout_rate=architecture.attention_dropout,
            norm_first=architecture.norm_first,
            kernel_initializer=initializer(stddev),
        ),
        num_hidden_instances=architecture.layers,
        pooled_output_dim=architecture.hidden_size,
        pooler_layer_initializer=initializer(stddev),
        dict_outputs=True,
    )


# The networks of official.nlp that the Hub's encoders were exported from -> a function of an architecture and the
# standard deviation of its weights.
NETWORKS: dict[str, Callable[[Architecture, float], tf_keras.layers.Layer]] = {
    "bert_v1": _build_bert,
    "bert_v2": _build_bert_v2,
    "albert": _build_albert,
    "talking_heads": _build_talking_heads,
}


# --- Presets --------------------------------------------------------------------------------------


class RandomPreset(NamedTuple):
    """What is built with random weights."""

    network: str  # A key of NETWORKS.
    architecture: Architecture


def _preset(
    network: str, layers: int, hidden_size: int, heads: int, vocab_size: int = 30522, embedding_width: int = 0
) -> RandomPreset:
    architecture = Architecture(
        vocab_size=vocab_size,
        embedding_width=embedding_width or hidden_size,
        hidden_size=hidden_size,
        layers=layers,
        heads=heads,
        inner_size=4 * hidden_size,
        max_positions=512,
        token_types=2,
        activation="gelu_tanh",
        dropout=0.1,
        attention_dropout=0.1,
        family="bert" if network.startswith("bert") else network,
    )
    return RandomPreset(network, architecture)


# ALBERT's vocabulary is small: SentencePiece finds no more pieces in WORDS.
RANDOM_PRESETS = {
    "tiny": _preset("bert_v1", 2, 64, 2, 1024),
    "tiny_bert_v2": _preset("bert_v2", 2, 64, 2, 1024),
    "tiny_electra": _preset("bert_v1", 2, 64, 2, 1024, embedding_width=32),
    "tiny_albert": _preset("albert", 2, 64, 2, 350, embedding_width=32),
    "tiny_talking_heads": _preset("talking_heads", 2, 64, 2, 1024),
    "medium_bert": _preset("bert_v1", 6, 256, 4),
    "medium_electra": _preset("bert_v1", 6, 256, 4, embedding_width=128),
    "medium_albert": _preset("albert", 6, 256, 4, 350, embedding_width=128),
    "medium_talking_heads": _preset("talking_heads", 6, 256, 4),
    "bert_base": _preset("bert_v1", 12, 768, 12),
    "bert_large": _preset("bert_v1", 24, 1024, 16),
}


def build_random_encoder(name: str, folder: Path, seed: int = 0) -> ImportedEncoder:
    """The encoder of a preset with random weights. Its vocabulary is written to `folder`.

    Raises UsageError if RANDOM_PRESETS has no preset of this name.
    """
    preset = RANDOM_PRESETS.get(name)
    if preset is None:
        raise UsageError(Problem("--source=random:PRESET", f"name one of {', '.join(RANDOM_PRESETS)}", name))
    tf_keras.utils.set_random_seed(seed)
    encoder = NETWORKS[preset.network](preset.architecture, STDDEV)
    write_vocabulary = write_sentencepiece if preset.network == "albert" else write_wordpiece
    return ImportedEncoder(encoder, write_vocabulary(folder, preset.architecture.vocab_size), lower_case=True)
