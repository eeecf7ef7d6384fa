"""Read what a configuration file says of an encoder's architecture: config.json of Hugging Face, bert_config.json.

Every key that changes what the encoder computes is used or refused. One that is not known here is refused too.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.encoders import architectures, source_files
from trainer.errors import Problem, UserError


@dataclasses.dataclass(frozen=True)
class ConfigKeys:
    """The keys of a family's configuration that decide what its encoder computes."""

    sizes: Mapping[str, str]  # A key -> the field of architectures.Architecture that it gives.
    rates: Mapping[str, str]  # The same for dropout.
    activation: str
    epsilon: str = ""  # "" if layer normalization adds LAYER_NORM_EPSILON always.
    token_types: int = 0  # How many there are if no key says it. They are not the family's own, and are 0 at first.
    other: frozenset[str] = frozenset()  # More keys that change nothing.


_BERT_SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "intermediate_size": "inner_size",
    "max_position_embeddings": "max_positions",
    "type_vocab_size": "token_types",
}
_BERT_RATES = {"hidden_dropout_prob": "dropout", "attention_probs_dropout_prob": "attention_dropout"}
_ELECTRA_OTHER = """
    summary_type summary_use_proj summary_activation summary_first_dropout summary_last_dropout summary_proj_to_labels
"""

# A model_type of Hugging Face -> its keys. Source: transformers/models/{model_type}/configuration_*.py.
CONFIG_KEYS = {
    "bert": ConfigKeys(_BERT_SIZES, _BERT_RATES, "hidden_act", "layer_norm_eps"),
    "distilbert": ConfigKeys(
        {
            "vocab_size": "vocab_size",
            "dim": "hidden_size",
            "n_layers": "layers",
            "n_heads": "heads",
            "hidden_dim": "inner_size",
            "max_position_embeddings": "max_positions",
        },
        {"dropout": "dropout", "attention_dropout": "attention_dropout"},
        "activation",
        token_types=2,
        # Sinusoidal positions are in the file of weights as learned ones are.
        other=frozenset("sinusoidal_pos_embds qa_dropout seq_classif_dropout tie_weights_".split()),  # noqa: SIM905
    ),
    "electra": ConfigKeys(
        {**_BERT_SIZES, "embedding_size": "embedding_width"},
        _BERT_RATES,
        "hidden_act",
        "layer_norm_eps",
        other=frozenset(_ELECTRA_OTHER.split()),
    ),
}

# hidden_act -> a key of architectures.ACTIVATIONS. Source: ACT2FN in transformers/activations.py.
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}

# Keys that change what the encoder computes, unless they have this value or null.
_SUPPORTED_VALUES: dict[str, Any] = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "is_encoder_decoder": False,
    "pruned_heads": {},
    "quantization_config": {},
    "auto_map": {},  # code of its own
}

# Keys of transformers' PretrainedConfig and BertConfig, of Google's and of tf-models-official's files, that do not
# change what the encoder computes: how it is stored and run, the heads on top of it, the generation of text.
_OTHER_KEYS = frozenset(
    """
    architectures model_type transformers_version torch_dtype dtype use_bfloat16 tf_legacy_loss torchscript
    initializer_range gradient_checkpointing chunk_size_feed_forward use_cache output_past attn_implementation
    output_attentions output_hidden_states return_dict use_return_dict name_or_path
    classifier_dropout id2label label2id num_labels problem_type finetuning_task task_specific_params
    tie_word_embeddings tie_encoder_decoder cross_attention_hidden_size
    tokenizer_class prefix language do_lower_case model_max_length
    pad_token_id bos_token_id eos_token_id sep_token_id cls_token_id mask_token_id unk_token_id decoder_start_token_id
    directionality pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type
    backward_compatible sbert_ce_default_activation_function sentence_transformers
    max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p
    typical_p repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids
    num_return_sequences output_scores return_dict_in_generate forced_bos_token_id forced_eos_token_id
    remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens
    """.split()  # noqa: SIM905
)


def read_model_type(path: Path) -> str:
    """The model_type in a config.json of Hugging Face. Raises UserError if it is none of CONFIG_KEYS."""
    model_type = source_files.read_json(path).get("model_type")
    if model_type not in list(CONFIG_KEYS):
        raise UserError(Problem(f"model_type in {path}", f"be {' or '.join(CONFIG_KEYS)}", str(model_type)))
    return model_type


def read_architecture(path: Path) -> architectures.Architecture:
    """The architecture of an encoder, as config.json of Hugging Face or bert_config.json describes it.

    Raises UserError with everything that is missing, invalid, or of another architecture.
    """
    config = source_files.read_json(path)
    keys = CONFIG_KEYS.get(str(config.get("model_type")), CONFIG_KEYS["bert"])
    epsilon = config.get(keys.epsilon, architectures.LAYER_NORM_EPSILON)
    act = config.get(keys.activation)
    problems = [*_find_missing_keys(path, config, keys), *_find_invalid_numbers(path, config, keys, epsilon)]
    if keys.activation in config and act not in list(_ACTIVATIONS):
        problems.append(Problem(f"{keys.activation} in {path}", f"be {', '.join(_ACTIVATIONS)}", json.dumps(act)))
    problems += _find_other_architectures(path, config, keys)
    if problems:
        raise UserError(*problems)
    # In Hugging Face's files "gelu" has the error function. Google's checkpoints were trained with the tanh form.
    activation = "gelu_tanh" if act == "gelu" and not config.get("model_type") else _ACTIVATIONS[str(act)]
    fields = {field: config[key] for key, field in {**keys.sizes, **keys.rates}.items()}
    defaults = {"embedding_width": fields["hidden_size"], "token_types": keys.token_types}
    return architectures.Architecture(**defaults | fields, activation=activation, layer_norm_epsilon=epsilon)


def describe_architecture(architecture: architectures.Architecture) -> dict[str, Any]:
    """What a config.json of Hugging Face says of a BERT: read_architecture reads the same architecture from it."""
    keys = CONFIG_KEYS["bert"]
    return {
        "model_type": "bert",
        keys.activation: next(name for name, own in _ACTIVATIONS.items() if own == architecture.activation),
        keys.epsilon: architecture.layer_norm_epsilon,
        **{key: getattr(architecture, field) for key, field in {**keys.sizes, **keys.rates}.items()},
    }


def _find_missing_keys(path: Path, config: dict[str, Any], keys: ConfigKeys) -> list[Problem]:
    missing = [key for key in (*keys.sizes, *keys.rates, keys.activation) if key not in config]
    return [Problem(str(path), "give every size of the encoder", f"no {', '.join(missing)}")] if missing else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _find_invalid_numbers(path: Path, config: dict[str, Any], keys: ConfigKeys, epsilon: Any) -> list[Problem]:
    problems = [
        Problem(f"{key} in {path}", "be a whole number above 0", json.dumps(config[key]))
        for key in keys.sizes
        if key in config and not (_is_number(config[key]) and isinstance(config[key], int) and config[key] > 0)
    ]
    problems += [
        Problem(f"{key} in {path}", "be a number from 0 to below 1", json.dumps(config[key]))
        for key in keys.rates
        if key in config and not (_is_number(config[key]) and 0 <= config[key] < 1)
    ]
    if not (_is_number(epsilon) and 0 < epsilon < 1):
        problems.append(Problem(f"{keys.epsilon} in {path}", "be a number above 0 and below 1", json.dumps(epsilon)))
    hidden_key, heads_key = (
        key for field in ("hidden_size", "heads") for key in keys.sizes if keys.sizes[key] == field
    )
    if not problems and {hidden_key, heads_key} <= config.keys() and config[hidden_key] % config[heads_key]:
        required = f"divide {hidden_key}, {config[hidden_key]}"
        problems.append(Problem(f"{heads_key} in {path}", required, str(config[heads_key])))
    return problems


def _find_other_architectures(path: Path, config: dict[str, Any], keys: ConfigKeys) -> list[Problem]:
    supported = dict(_SUPPORTED_VALUES)
    if "embedding_size" not in keys.sizes:
        supported["embedding_size"] = config.get("hidden_size")
    problems = [
        Problem(
            f"{key} in {path}",
            f"be {json.dumps(value)} or missing",
            json.dumps(config[key]),
            "Encoders that compute something else cannot be imported.",
        )
        for key, value in supported.items()
        if config.get(key) is not None and config[key] != value
    ]
    known = {*keys.sizes, *keys.rates, keys.activation, keys.epsilon, *keys.other, *supported, *_OTHER_KEYS}
    unknown = [key for key in config if key not in known and not key.startswith("_")]
    if unknown:
        problems.append(
            Problem(
                str(path),
                "hold no key that is unknown here, and may change what the encoder computes",
                ", ".join(unknown),
                "Remove the key from a copy of the folder if you know that it does not.",
            )
        )
    return problems
