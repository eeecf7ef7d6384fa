import dataclasses
import json

import pytest
from fakes.bert import CONFIG, to_distilbert

from trainer.encoders import architectures, bert_configs
from trainer.errors import UserError

SIZES = {**CONFIG, "type_vocab_size": 3, "hidden_dropout_prob": 0.2}
# A config.json as transformers 4 writes it, in parts.
OTHER = dict(
    _name_or_path="bert-base-uncased",
    architectures=["BertModel"],
    classifier_dropout=None,
    gradient_checkpointing=False,
    id2label={"0": "no"},
    pad_token_id=0,
    torch_dtype="float32",
    transformers_version="4.30.2",
    use_cache=True,
)
ARCHITECTURE = architectures.Architecture(
    vocab_size=30,
    embedding_width=16,
    hidden_size=16,
    layers=2,
    heads=4,
    inner_size=24,
    max_positions=20,
    token_types=3,
    activation="gelu",
    dropout=0.2,
    attention_dropout=0.1,
)


@pytest.fixture
def read(tmp_path):
    """A function keys -> the architecture that a config.json with SIZES, these and a model_type describes."""

    def read_file(**keys):
        path = tmp_path / "config.json"
        path.write_text(json.dumps({"model_type": "bert", **SIZES, **keys}))
        return bert_configs.read_architecture(path)

    return read_file


def find_problems(read, **keys):
    with pytest.raises(UserError) as caught:
        read(**keys)
    return caught.value.problems


def test_sizes_and_rates_are_read(read):
    assert read() == read(**OTHER) == ARCHITECTURE
    assert read(layer_norm_eps=1e-5).layer_norm_epsilon == 1e-5
    assert read(layer_norm_eps=1e-12) == ARCHITECTURE


@pytest.mark.parametrize(
    ("name", "of_hugging_face", "of_google"),
    [
        ("gelu", "gelu", "gelu_tanh"),
        ("gelu_python", "gelu", "gelu"),
        ("gelu_new", "gelu_tanh", "gelu_tanh"),
        ("gelu_pytorch_tanh", "gelu_tanh", "gelu_tanh"),
        ("relu", "relu", "relu"),
    ],
)
def test_an_activation_has_the_form_of_its_format(read, name, of_hugging_face, of_google):
    assert read(hidden_act=name).activation == of_hugging_face
    assert read(hidden_act=name, model_type=None).activation == of_google


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("position_embedding_type", "relative_key"),
        ("position_embedding_type", "relative_key_query"),
        ("is_decoder", True),
        ("add_cross_attention", True),
        ("is_encoder_decoder", True),
        ("pruned_heads", {"0": [1]}),
        ("quantization_config", {"bits": 4}),
        ("auto_map", {"AutoModel": "modeling.Bert"}),
        ("embedding_size", 8),
        ("hidden_act", "silu"),
        ("hidden_act", ["gelu"]),
        ("vocab_size", 0),
        ("num_hidden_layers", 2.0),
        ("hidden_size", "16"),
        ("type_vocab_size", True),
        ("hidden_dropout_prob", 1.5),
        ("layer_norm_eps", 0),
        ("layer_norm_eps", "1e-5"),
        ("num_attention_heads", 3),
    ],
)
def test_a_value_that_cannot_be_imported_is_named_with_its_key(read, key, value):
    (problem,) = find_problems(read, **{key: value})
    assert problem.setting.startswith(f"{key} in ")
    assert problem.received in (json.dumps(value), str(value))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("position_embedding_type", "absolute"),
        ("is_decoder", False),
        ("pruned_heads", {}),
        ("auto_map", None),
        ("embedding_size", 16),
        ("embedding_size", None),
    ],
)
def test_a_value_that_changes_nothing_is_accepted(read, key, value):
    assert read(**{key: value}) == ARCHITECTURE


def test_an_unknown_key_is_named(read):
    (problem,) = find_problems(read, rotary_base=10000, alibi=True)
    assert problem.received == "rotary_base, alibi"


def test_everything_is_reported_at_once(read, tmp_path):
    problems = find_problems(read, is_decoder=True, hidden_act="silu", vocab_size=-1, x=1)
    assert [problem.setting.split()[0] for problem in problems] == [
        "vocab_size",
        "hidden_act",
        "is_decoder",
        str(tmp_path / "config.json"),
    ]


def test_every_missing_key_is_named(tmp_path):
    path = tmp_path / "bert_config.json"
    missing = ("vocab_size", "attention_probs_dropout_prob")
    path.write_text(json.dumps({key: value for key, value in SIZES.items() if key not in missing}))
    with pytest.raises(UserError, match="no vocab_size, attention_probs_dropout_prob"):
        bert_configs.read_architecture(path)


def test_the_architecture_of_google_differs_in_gelu_alone(read):
    assert read(model_type=None) == dataclasses.replace(ARCHITECTURE, activation="gelu_tanh")


# --- Other families -------------------------------------------------------------------------------


@pytest.fixture
def read_distilbert(tmp_path):
    """A function keys -> the architecture of a DistilBERT with SIZES and these."""

    def read_file(**keys):
        config, _ = to_distilbert(SIZES, {})
        (tmp_path / "config.json").write_text(json.dumps(config | keys))
        return bert_configs.read_architecture(tmp_path / "config.json")

    return read_file


def test_a_distilbert_has_keys_of_its_own(read_distilbert):
    expected = dataclasses.replace(ARCHITECTURE, token_types=2)
    assert read_distilbert(qa_dropout=0.1, seq_classif_dropout=0.2) == expected
    assert read_distilbert(activation="relu").activation == "relu"


@pytest.mark.parametrize(
    ("key", "value"), [("n_heads", 3), ("dim", 0), ("activation", "silu"), ("attention_dropout", 2)]
)
def test_a_wrong_key_of_a_distilbert_is_named(read_distilbert, key, value):
    (problem,) = find_problems(read_distilbert, **{key: value})
    assert problem.setting.startswith(f"{key} in ")


def test_an_electra_has_a_width_of_its_embeddings(read):
    electra = dict(model_type="electra", summary_type="first", summary_use_proj=True)
    assert read(**electra, embedding_size=8) == dataclasses.replace(ARCHITECTURE, embedding_width=8)
    (problem,) = find_problems(read, **electra)
    assert problem.received == "no embedding_size"


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "electra"])
def test_a_known_model_type_is_read(tmp_path, model_type):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    assert bert_configs.read_model_type(tmp_path / "config.json") == model_type


@pytest.mark.parametrize("model_type", ["roberta", None, ["bert"], "deberta-v2"])
def test_another_model_type_is_refused(tmp_path, model_type):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(UserError, match=r"model_type in .* be bert or distilbert or electra"):
        bert_configs.read_model_type(tmp_path / "config.json")
