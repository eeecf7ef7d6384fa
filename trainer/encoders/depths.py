"""How deep a variable lies in a classifier, by its name: what freezing and layer-wise learning rates go by."""

import re
from collections.abc import Sequence

# The embeddings, with their normalization and their projection to the hidden size.
_EMBEDDINGS = re.compile(r"(^|/)(word_embeddings|position_embedding|type_embeddings|embeddings|embedding_projection)/")
# BERT's and ELECTRA's layers have a number. ALBERT has one block without, which all of its layers share. Keras numbers
# the layers of talking heads over the whole process, the first one without a number.
_LAYER = re.compile(r"(^|/)(transformer/layer_(?P<layer>\d+)|transformer_scaffold(_(?P<scaffold>\d+))?|transformer)/")


def variable_depths(names: Sequence[str]) -> list[int]:
    """The depth of each of a classifier's variables: 0 in the embeddings, 1 to L in its L layers, L + 1 behind them.

    Behind the layers are the pooler and the head. ALBERT's shared block is one layer.
    """
    numbers = [_layer_number(name) for name in names]
    layers = sorted({number for number in numbers if number is not None})
    return [
        0 if _EMBEDDINGS.search(name) else len(layers) + 1 if number is None else layers.index(number) + 1
        for name, number in zip(names, numbers, strict=True)
    ]


def shares_layers(names: Sequence[str]) -> bool:
    """Whether the layers of an encoder are one block that all of them share, as ALBERT's."""
    matches = (_LAYER.search(name) for name in names)
    return any(match is not None and match[2] == "transformer" for match in matches)


def _layer_number(name: str) -> int | None:
    """What orders the layers, None for a variable of none."""
    match = _LAYER.search(name)
    return int(match["layer"] or match["scaffold"] or 0) if match else None
