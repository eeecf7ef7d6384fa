"""What an encoder computes, with NumPy, from the tensors of a file and what a configuration says of them.

Every import is compared with it: it shares no code with official.nlp, nor with the SavedModel that was written.
Sources: Devlin et al., "BERT", 2018; Clark et al., "ELECTRA", 2020, for the projection of the embeddings.

Shapes: B batch, S sequence, H hidden.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy.special

from trainer.encoders.architectures import Architecture

# Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016.
_ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "gelu": lambda x: x * (1 + scipy.special.erf(x / math.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    "relu": lambda x: np.maximum(x, 0),
}


@dataclasses.dataclass(frozen=True)
class Reference:
    """An encoder as its source describes it."""

    architecture: Architecture  # The configuration's.
    values: Mapping[str, np.ndarray]  # By canonical name, in weights.stored_shape.


def compute_outputs(reference: Reference, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Compute in float64. `inputs` are input_word_ids, input_mask and input_type_ids, integers [B, S].

    Returns encoder_outputs, an array [B, S, H] of every layer, and pooled_output [B, H], in float32.
    """
    architecture, values = reference.architecture, reference.values

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ values[f"{name}/kernel"].astype(np.float64) + values[f"{name}/bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        deviation = np.sqrt(x.var(-1, keepdims=True) + architecture.layer_norm_epsilon)
        return (x - x.mean(-1, keepdims=True)) / deviation * values[f"{name}/gamma"] + values[f"{name}/beta"]

    def attend(x: np.ndarray, name: str) -> np.ndarray:
        query, key, value = (
            dense(x, f"{name}/{part}").reshape(*x.shape[:2], architecture.heads, -1).transpose(0, 2, 1, 3)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 1, 3, 2) / math.sqrt(query.shape[-1]) + hidden_positions
        mixed = scipy.special.softmax(scores, axis=-1) @ value
        return dense(mixed.transpose(0, 2, 1, 3).reshape(*x.shape[:2], -1), f"{name}/attention_output")

    words, mask, types = (np.asarray(inputs[f"input_{name}"]) for name in ("word_ids", "mask", "type_ids"))
    hidden_positions = -1e9 * (1.0 - mask[:, np.newaxis, np.newaxis])
    type_table = values["type_embeddings/embeddings"].astype(np.float64)
    x = values["word_embeddings/embeddings"][words].astype(np.float64)
    x += values["position_embedding/embeddings"][: words.shape[1]]
    x += (types[..., np.newaxis] == np.arange(len(type_table))) @ type_table  # 0 for a type that there is not
    x = norm(x, "embeddings/layer_norm")
    if architecture.embedding_width != architecture.hidden_size:
        x = dense(x, "embedding_projection")
    outputs = []
    for layer in range(architecture.layers):
        prefix = f"transformer/layer_{layer}"
        x = norm(x + attend(x, f"{prefix}/self_attention"), f"{prefix}/self_attention_layer_norm")
        inner = _ACTIVATIONS[architecture.activation](dense(x, f"{prefix}/intermediate"))
        x = norm(x + dense(inner, f"{prefix}/output"), f"{prefix}/output_layer_norm")
        outputs.append(x.astype(np.float32))
    pooled = np.tanh(dense(x[:, 0], "pooler_transform"))
    return {"encoder_outputs": outputs, "pooled_output": pooled.astype(np.float32)}
