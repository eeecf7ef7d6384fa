"""Encoders with random weights, of every family, for tests and benchmarks; their vocabularies are common words."""

import string
from pathlib import Path
from typing import Any

import tf_keras
from official.nlp.modeling import layers, networks

from trainer.encoders import native
from trainer.encoders.convert import Source

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

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

ENDINGS = "##s ##ed ##ing ##er ##est ##ly ##ness ##ment ##ful ##less ##able ##tion ##y ##al ##ive".split()  # noqa: SIM905


def write_wordpiece(folder: Path, size: int) -> Path:
    """folder/vocab.txt with exactly `size` pieces; any ASCII text can be written with them."""
    letters = string.ascii_lowercase + string.digits
    pieces = list(
        dict.fromkeys([*SPECIAL, *string.punctuation, *letters, *(f"##{c}" for c in letters), *ENDINGS, *WORDS])
    )
    if len(pieces) > size:
        raise ValueError(f"The vocabulary must have room for {len(pieces)} pieces. Received: a size of {size}.")
    pieces += [f"[unused{i}]" for i in range(size - len(pieces))]
    path = folder / "vocab.txt"
    path.write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return path


def write_sentencepiece(folder: Path, size: int) -> Path:
    """folder/pieces.model, a unigram SentencePiece model of `size` pieces with ALBERT's special tokens."""
    import sentencepiece  # only the ALBERT preset needs it

    words = list(dict.fromkeys(WORDS))
    lines = [" ".join(words[(i * 7 + j * j) % len(words)] for j in range(12)) for i in range(2000)]
    lines += [string.ascii_lowercase, string.digits, string.punctuation] * 5
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
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


def _sizes(layers: int, hidden: int, heads: int, vocab: int) -> dict[str, Any]:
    return dict(
        vocab_size=vocab,
        hidden_size=hidden,
        num_layers=layers,
        num_attention_heads=heads,
        max_sequence_length=512,
        type_vocab_size=2,
    )


def _random_bert(layers: int, hidden: int, heads: int, vocab: int) -> tf_keras.Model:
    return networks.BertEncoder(**_sizes(layers, hidden, heads, vocab), inner_dim=4 * hidden, dict_outputs=True)


def _random_bert_v2(layers: int, hidden: int, heads: int, vocab: int) -> tf_keras.layers.Layer:
    encoder = networks.BertEncoderV2(**_sizes(layers, hidden, heads, vocab), inner_dim=4 * hidden)
    encoder(encoder.inputs)
    return encoder


def _random_electra(layers: int, hidden: int, heads: int, vocab: int) -> tf_keras.Model:
    return networks.BertEncoder(
        **_sizes(layers, hidden, heads, vocab), inner_dim=4 * hidden, embedding_width=hidden // 2, dict_outputs=True
    )


def _random_albert(layers: int, hidden: int, heads: int, vocab: int) -> tf_keras.Model:
    return networks.AlbertEncoder(
        **_sizes(layers, hidden, heads, vocab),
        intermediate_size=4 * hidden,
        embedding_width=hidden // 2,
        dict_outputs=True,
    )


def _random_talking_heads(layers_: int, hidden: int, heads: int, vocab: int) -> tf_keras.Model:
    def initializer() -> tf_keras.initializers.Initializer:
        return tf_keras.initializers.TruncatedNormal(stddev=0.02)

    activation = native.ACTIVATIONS["gelu_tanh"]
    return networks.EncoderScaffold(
        embedding_cfg=dict(
            vocab_size=vocab,
            type_vocab_size=2,
            hidden_size=hidden,
            max_seq_length=512,
            initializer=initializer(),
            dropout_rate=0.1,
        ),
        hidden_cls=layers.TransformerScaffold,
        hidden_cfg=dict(
            num_attention_heads=heads,
            inner_dim=4 * hidden,
            inner_activation=activation,
            attention_cls=layers.TalkingHeadsAttention,
            feedforward_cls=layers.GatedFeedforward,
            feedforward_cfg=dict(
                inner_dim=4 * hidden, inner_activation=activation, dropout=0.1, kernel_initializer=initializer()
            ),
            dropout_rate=0.1,
            attention_dropout_rate=0.1,
            kernel_initializer=initializer(),
        ),
        num_hidden_instances=layers_,
        pooled_output_dim=hidden,
        pooler_layer_initializer=initializer(),
        dict_outputs=True,
    )


# preset -> (builder, layers, hidden size, heads, size of the vocabulary)
RANDOM_PRESETS = {
    "tiny": (_random_bert, 2, 64, 2, 1024),
    "tiny_bert_v2": (_random_bert_v2, 2, 64, 2, 1024),
    "tiny_electra": (_random_electra, 2, 64, 2, 1024),
    "tiny_albert": (_random_albert, 2, 64, 2, 350),
    "tiny_talking_heads": (_random_talking_heads, 2, 64, 2, 1024),
    "bert_base": (_random_bert, 12, 768, 12, 30522),
    "bert_large": (_random_bert, 24, 1024, 16, 30522),
}


def build_random_encoder(preset: str, folder: Path, seed: int = 0) -> Source:
    """An encoder with random weights; its vocabulary file is written to `folder`."""
    if preset not in RANDOM_PRESETS:
        raise ValueError(f"--source=random:PRESET takes one of {', '.join(RANDOM_PRESETS)}. Received: {preset}.")
    builder, depth, hidden, heads, size = RANDOM_PRESETS[preset]
    tf_keras.utils.set_random_seed(seed)
    write_vocabulary = write_sentencepiece if builder is _random_albert else write_wordpiece
    return Source(builder(depth, hidden, heads, size), write_vocabulary(folder, size), lower_case=True)
