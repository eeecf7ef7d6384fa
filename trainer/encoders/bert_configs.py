"""Read what a BERT's configuration file says of its architecture: config.json of Hugging Face, bert_config.json.

Every key that changes what the encoder computes is used or refused. One that is not known here is refused too.
"""

import json
from pathlib import Path
from typing import Any

from trainer.encoders import architectures
from trainer.errors import Problem, UserError

# A key -> the field of architectures.Architecture that holds it.
_SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "intermediate_size": "inner_size",
    "max_position_embeddings": "max_positions",
    "type_vocab_size": "token_types",
}
_RATES = {"hidden_dropout_prob": "dropout", "attention_probs_dropout_prob": "attention_dropout"}

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


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError if it holds anything else."""
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(Problem(str(path), "hold JSON", f"a file that does not parse ({error})")) from None
    if not isinstance(loaded, dict):
        raise UserError(Problem(str(path), "hold a JSON object", json.dumps(loaded)[:80]))
    return loaded


def read_architecture(path: Path) -> architectures.Architecture:
    """The architecture of a BERT, as config.json of Hugging Face or bert_config.json describes it.

    Raises UserError with everything that is missing, invalid, or of another architecture.
    """
    config = read_json(path)
    epsilon = config.get("layer_norm_eps", architectures.LAYER_NORM_EPSILON)
    problems = [*_find_missing_keys(path, config), *_find_invalid_numbers(path, config, epsilon)]
    if "hidden_act" in config and config["hidden_act"] not in list(_ACTIVATIONS):
        problems.append(
            Problem(f"hidden_act in {path}", f"be {', '.join(_ACTIVATIONS)}", json.dumps(config["hidden_act"]))
        )
    problems += _find_other_architectures(path, config)
    if problems:
        raise UserError(*problems)
    activation = _ACTIVATIONS[config["hidden_act"]]
    if config.get("model_type") != "bert" and config["hidden_act"] == "gelu":
        # In Hugging Face's files "gelu" has the error function. Google's checkpoints were trained with the tanh form.
        activation = "gelu_tanh"
    fields = {field: config[key] for key, field in {**_SIZES, **_RATES}.items()}
    return architectures.Architecture(
        **fields, embedding_width=config["hidden_size"], activation=activation, layer_norm_epsilon=epsilon
    )


def describe_architecture(architecture: architectures.Architecture) -> dict[str, Any]:
    """What a config.json of Hugging Face says of a BERT: read_architecture reads the same architecture from it."""
    fields = {**_SIZES, **_RATES}
    return {
        "model_type": "bert",
        "hidden_act": next(name for name, own in _ACTIVATIONS.items() if own == architecture.activation),
        "layer_norm_eps": architecture.layer_norm_epsilon,
        **{key: getattr(architecture, field) for key, field in fields.items()},
    }


def _find_missing_keys(path: Path, config: dict[str, Any]) -> list[Problem]:
    missing = [key for key in (*_SIZES, *_RATES, "hidden_act") if key not in config]
    return [Problem(str(path), "give every size of a BERT encoder", f"no {', '.join(missing)}")] if missing else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _find_invalid_numbers(path: Path, config: dict[str, Any], epsilon: Any) -> list[Problem]:
    problems = [
        Problem(f"{key} in {path}", "be a whole number above 0", json.dumps(config[key]))
        for key in _SIZES
        if key in config and not (_is_number(config[key]) and isinstance(config[key], int) and config[key] > 0)
    ]
    problems += [
        Problem(f"{key} in {path}", "be a number from 0 to below 1", json.dumps(config[key]))
        for key in _RATES
        if key in config and not (_is_number(config[key]) and 0 <= config[key] < 1)
    ]
    if not (_is_number(epsilon) and 0 < epsilon < 1):
        problems.append(Problem(f"layer_norm_eps in {path}", "be a number above 0 and below 1", json.dumps(epsilon)))
    if not problems and {"hidden_size", "num_attention_heads"} <= config.keys():
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        if hidden % heads:
            required = f"divide hidden_size, {hidden}"
            problems.append(Problem(f"num_attention_heads in {path}", required, str(heads)))
    return problems


def _find_other_architectures(path: Path, config: dict[str, Any]) -> list[Problem]:
    supported = {**_SUPPORTED_VALUES, "embedding_size": config.get("hidden_size")}
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
    known = {*_SIZES, *_RATES, *supported, "hidden_act", "layer_norm_eps", *_OTHER_KEYS}
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
