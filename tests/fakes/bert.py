"""A small BERT, DistilBERT and ELECTRA as Hugging Face stores them, a BERT as Google does, and what they compute.

The outputs are computed with NumPy from what the files hold.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

CONFIG: dict[str, Any] = dict(
    vocab_size=30,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=24,
    max_position_embeddings=20,
    type_vocab_size=2,
    hidden_act="gelu",
    hidden_dropout_prob=0.1,
    attention_probs_dropout_prob=0.1,
    initializer_range=0.02,
)
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwx", "."]

ACTIVATIONS = {
    "gelu": lambda x: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2,
    "gelu_new": lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    "relu": lambda x: np.maximum(x, 0),
}


def random_weights(layers: int = CONFIG["num_hidden_layers"], width: int = CONFIG["hidden_size"]) -> dict:
    """A BERT's weights by Hugging Face's names, so large that every part of the encoder changes the outputs.

    Embeddings of another `width` than the hidden size are projected to it, as ELECTRA's are.
    """
    rng = np.random.default_rng(0)
    hidden, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]

    def dense(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}

    def norm(name: str, size: int = hidden) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (size,), f"{name}.bias": (size,)}

    shapes = {f"embeddings.{kind}_embeddings.weight": (CONFIG[size], width) for kind, size in (
        ("word", "vocab_size"), ("position", "max_position_embeddings"), ("token_type", "type_vocab_size")
    )} | norm("embeddings.LayerNorm", width) | dense("pooler.dense", hidden, hidden)  # fmt: skip
    if width != hidden:
        shapes |= dense("embeddings_project", hidden, width)
    for layer in range(layers):
        prefix = f"encoder.layer.{layer}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= dense(f"{prefix}.attention.{part}", hidden, hidden)
        shapes |= dense(f"{prefix}.intermediate.dense", inner, hidden) | dense(f"{prefix}.output.dense", hidden, inner)
        shapes |= norm(f"{prefix}.attention.output.LayerNorm") | norm(f"{prefix}.output.LayerNorm")
    return {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def compute_outputs(
    config: dict[str, Any], weights: dict[str, np.ndarray], inputs: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """(sequence output [B, S, H], pooled output [B, H]), as BERT's paper has them. `inputs` are int32 [B, S]."""
    heads, epsilon = config["num_attention_heads"], config.get("layer_norm_eps", 1e-12)
    weights = {name: value.astype(np.float64) for name, value in weights.items()}

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    words, types = inputs["input_word_ids"], inputs["input_type_ids"]
    x = weights["embeddings.word_embeddings.weight"][words] + weights["embeddings.token_type_embeddings.weight"][types]
    x = norm(x + weights["embeddings.position_embeddings.weight"][: words.shape[1]], "embeddings.LayerNorm")
    x = dense(x, "embeddings_project") if "embeddings_project.weight" in weights else x
    for layer in range(config["num_hidden_layers"]):
        prefix = f"encoder.layer.{layer}"
        q, k, v = (
            dense(x, f"{prefix}.attention.self.{part}").reshape(*words.shape, heads, -1).transpose(0, 2, 1, 3)
            for part in ("query", "key", "value")
        )
        scores = q @ k.transpose(0, 1, 3, 2) / math.sqrt(q.shape[-1]) - 1e9 * (1 - inputs["input_mask"][:, None, None])
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True) @ v).transpose(0, 2, 1, 3).reshape(x.shape)
        x = norm(x + dense(mixed, f"{prefix}.attention.output.dense"), f"{prefix}.attention.output.LayerNorm")
        inner = ACTIVATIONS[config["hidden_act"]](dense(x, f"{prefix}.intermediate.dense"))
        x = norm(x + dense(inner, f"{prefix}.output.dense"), f"{prefix}.output.LayerNorm")
    return x, np.tanh(dense(x[:, 0], "pooler.dense"))


# BERT's names and keys -> DistilBERT's.
DISTILBERT_NAMES = {
    "encoder.layer": "transformer.layer",
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}
DISTILBERT_KEYS = dict(
    vocab_size="vocab_size",
    hidden_size="dim",
    num_hidden_layers="n_layers",
    num_attention_heads="n_heads",
    intermediate_size="hidden_dim",
    max_position_embeddings="max_position_embeddings",
    hidden_act="activation",
    hidden_dropout_prob="dropout",
    attention_probs_dropout_prob="attention_dropout",
)


def to_distilbert(config: dict[str, Any], weights: dict[str, np.ndarray]) -> tuple[dict[str, Any], dict]:
    """The same encoder as a DistilBERT for masked words: (config.json, weights). It has no token types, no pooler."""
    renamed = {}
    for name, value in weights.items():
        if "token_type" not in name and not name.startswith("pooler"):
            for old, new in DISTILBERT_NAMES.items():
                name = name.replace(old, new)
            renamed[f"distilbert.{name}"] = value
    renamed["vocab_projector.bias"] = np.zeros(config["vocab_size"], np.float32)
    keys = {new: config[old] for old, new in DISTILBERT_KEYS.items()}
    return {"model_type": "distilbert", "sinusoidal_pos_embds": False, "tie_weights_": True, **keys}, renamed


def to_electra(config: dict[str, Any], weights: dict[str, np.ndarray], head: str) -> tuple[dict[str, Any], dict]:
    """The same encoder as an ELECTRA with a head, without pooler: (config.json, weights)."""
    renamed = {f"electra.{name}": value for name, value in weights.items() if not name.startswith("pooler")}
    renamed[f"{head}.dense.weight"] = np.zeros([4, config["hidden_size"]], np.float32)
    width = weights["embeddings.LayerNorm.weight"].size
    return {"model_type": "electra", "embedding_size": width, "summary_type": "first", **config}, renamed


def write_vocabulary(folder: Path, pieces: list[str] = PIECES) -> None:
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")


def write_hugging_face(folder: Path, weights: dict[str, np.ndarray] | None = None, **config: Any) -> Path:
    """Write a folder of Hugging Face with random_weights, or others, and these changes to CONFIG; return it."""
    folder.mkdir()
    safetensors.numpy.save_file(weights or random_weights(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", **CONFIG, **config}))
    write_vocabulary(folder)
    return folder
