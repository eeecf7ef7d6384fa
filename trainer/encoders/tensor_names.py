"""How files name the tensors of a BERT encoder: Hugging Face's BERT, DistilBERT and ELECTRA, Google's of 2018.

A name in a file is put together from a variable's canonical name in official.nlp (`native.canonical_name`).
"""

import dataclasses
import re
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class TensorNames:
    """How one family's files name the tensors of an encoder, and which other tensors they may hold."""

    parts: Mapping[str, str]  # A canonical name without its layer and its last part -> the same in the file.
    layer: str  # What stands before the parts of layer {}.
    kinds: Mapping[str, str]  # The last part of a canonical name -> what the file's name ends with.
    prefix: str  # What may stand before any name.
    unused: re.Pattern[str]  # Tensors that an encoder does without: heads, counted positions, an optimizer's state.
    transposed: bool  # Kernels are [out, in] instead of [in, out].


# Source: the checkpoints of github.com/google-research/bert.
_BERT = {
    "word_embeddings": "embeddings/word_embeddings",
    "position_embedding": "embeddings/position_embeddings",
    "type_embeddings": "embeddings/token_type_embeddings",
    "embeddings/layer_norm": "embeddings/LayerNorm",
    "self_attention/query": "attention/self/query",
    "self_attention/key": "attention/self/key",
    "self_attention/value": "attention/self/value",
    "self_attention/attention_output": "attention/output/dense",
    "self_attention_layer_norm": "attention/output/LayerNorm",
    "intermediate": "intermediate/dense",
    "output": "output/dense",
    "output_layer_norm": "output/LayerNorm",
    "pooler_transform": "pooler/dense",
}

GOOGLE = TensorNames(
    parts=_BERT,
    layer="encoder/layer_{}/",
    kinds={"embeddings": "", **{kind: f"/{kind}" for kind in ("kernel", "bias", "gamma", "beta")}},
    prefix="bert/",
    unused=re.compile(
        r"cls/|output_(weights|bias)$|global_step$|.*/adam_[mv]$|.*/Adam(_1)?$|beta[12]_power$|(good|bad)_steps$|"
        r"loss_scale$"
    ),
    transposed=False,
)


def _hugging_face(parts: Mapping[str, str], layer: str, prefix: str, heads: str) -> TensorNames:
    return TensorNames(
        parts={part: name.replace("/", ".") for part, name in parts.items()},
        layer=layer,
        kinds={"embeddings": ".weight", "kernel": ".weight", "gamma": ".weight", "beta": ".bias", "bias": ".bias"},
        prefix=prefix,
        unused=re.compile(rf"({heads})\.|embeddings\.(position_ids|token_type_ids)$"),
        transposed=True,
    )


# A model_type of Hugging Face -> its names. Source: the modules in transformers/models/{model_type}/modeling_*.py.
HUGGING_FACE = {
    "bert": _hugging_face(_BERT, "encoder.layer.{}.", "bert.", "cls|classifier|qa_outputs"),
    # No token types and no pooler.
    "distilbert": _hugging_face(
        {
            "word_embeddings": "embeddings/word_embeddings",
            "position_embedding": "embeddings/position_embeddings",
            "embeddings/layer_norm": "embeddings/LayerNorm",
            "self_attention/query": "attention/q_lin",
            "self_attention/key": "attention/k_lin",
            "self_attention/value": "attention/v_lin",
            "self_attention/attention_output": "attention/out_lin",
            "self_attention_layer_norm": "sa_layer_norm",
            "intermediate": "ffn/lin1",
            "output": "ffn/lin2",
            "output_layer_norm": "output_layer_norm",
        },
        "transformer.layer.{}.",
        "distilbert.",
        "vocab_transform|vocab_layer_norm|vocab_projector|pre_classifier|classifier|qa_outputs",
    ),
    # The generator and the discriminator differ in their heads alone. No pooler.
    "electra": _hugging_face(
        {part: name for part, name in _BERT.items() if part != "pooler_transform"}
        | {"embedding_projection": "embeddings_project"},
        "encoder.layer.{}.",
        "electra.",
        "generator_predictions|generator_lm_head|discriminator_predictions|classifier|qa_outputs|sequence_summary",
    ),
}


def file_name(names: TensorNames, canonical: str) -> str | None:
    """`transformer/layer_3/output/kernel` -> `encoder.layer.3.output.dense.weight`. None if the family has no such."""
    path, kind = canonical.rsplit("/", 1)
    layer = ""
    if path.startswith("transformer/"):
        _, number, path = path.split("/", 2)
        layer = names.layer.format(number.removeprefix("layer_"))
    return f"{layer}{names.parts[path]}{names.kinds[kind]}" if path in names.parts else None


def plain_name(names: TensorNames, name: str) -> str:
    """A name in a file without its prefix, and without the spelling of Hugging Face's first versions."""
    name = name.removeprefix(names.prefix)
    return re.sub(r"\bLayerNorm\.(gamma|beta)$", lambda match: f"LayerNorm{names.kinds[match[1]]}", name)
