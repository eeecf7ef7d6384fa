"""Which of a classifier's variables are trained: what model.freeze and model.pooling leave."""

import re
from collections.abc import Sequence

import tensorflow as tf

from trainer.encoders import depths
from trainer.errors import Problem

HEAD = "classifier/"  # The layer of classifier.build_classifier, as its variables' names begin.
# Every family's pooler, "pooler_transform". The other poolings do not use it.
_POOLER = re.compile(r"(^|/)pooler")
_LAYERS = "layers:"


def choose_trained_variables(variables: Sequence[tf.Variable], freeze: str, pooling: str) -> list[tf.Variable]:
    """Those of a classifier's trainable variables that are trained.

    `freeze` is "none", "embeddings", "layers:N" (the embeddings and the first N layers) or "encoder" (all but the
    head); `pooling` is that of classifier.pool_tokens.
    """
    found = depths.variable_depths([variable.name for variable in variables])
    return [
        variable
        for variable, depth in zip(variables, found, strict=True)
        if variable.name.startswith(HEAD)
        or (
            freeze != "encoder"
            and depth > _deepest_frozen(freeze)
            and (pooling == "pooled" or not _POOLER.search(variable.name))
        )
    ]


def _deepest_frozen(freeze: str) -> int:
    """The depth, as in depths.variable_depths, up to which variables are frozen. -1 if none is."""
    if freeze.startswith(_LAYERS):
        return int(freeze.removeprefix(_LAYERS))
    return 0 if freeze == "embeddings" else -1


def find_freeze_problem(freeze: str, names: Sequence[str], encoder: str) -> Problem | None:
    """What of model.freeze does not suit the encoder whose variables have these names. None if all does."""
    if freeze in ("none", "encoder"):
        return None
    found = depths.variable_depths(names)
    frozen, layers = _deepest_frozen(freeze), max(found) - 1
    if 0 not in found or not layers:
        required = f"be none or encoder for {encoder}, whose variables do not tell its layers by their names"
    elif frozen and depths.shares_layers(names):
        required = f"be none, embeddings or encoder for {encoder}, all of whose layers share one block"
    elif frozen > layers:
        required = f"be {_LAYERS}{layers} at most for {encoder}"
    else:
        return None
    return Problem("model.freeze", required, freeze)
