import pytest

from trainer.encoders import tensor_names
from trainer.encoders.tensor_names import GOOGLE, HUGGING_FACE


@pytest.mark.parametrize(
    ("canonical", "google", "bert", "distilbert"),
    [
        (
            "word_embeddings/embeddings",
            "embeddings/word_embeddings",
            "embeddings.word_embeddings.weight",
            "embeddings.word_embeddings.weight",
        ),
        (
            "type_embeddings/embeddings",
            "embeddings/token_type_embeddings",
            "embeddings.token_type_embeddings.weight",
            None,
        ),
        (
            "embeddings/layer_norm/gamma",
            "embeddings/LayerNorm/gamma",
            "embeddings.LayerNorm.weight",
            "embeddings.LayerNorm.weight",
        ),
        (
            "transformer/layer_11/self_attention/query/kernel",
            "encoder/layer_11/attention/self/query/kernel",
            "encoder.layer.11.attention.self.query.weight",
            "transformer.layer.11.attention.q_lin.weight",
        ),
        (
            "transformer/layer_0/self_attention_layer_norm/beta",
            "encoder/layer_0/attention/output/LayerNorm/beta",
            "encoder.layer.0.attention.output.LayerNorm.bias",
            "transformer.layer.0.sa_layer_norm.bias",
        ),
        (
            "transformer/layer_3/output/kernel",
            "encoder/layer_3/output/dense/kernel",
            "encoder.layer.3.output.dense.weight",
            "transformer.layer.3.ffn.lin2.weight",
        ),
        ("pooler_transform/bias", "pooler/dense/bias", "pooler.dense.bias", None),
    ],
)
def test_names_in_every_format(canonical, google, bert, distilbert):
    assert tensor_names.file_name(GOOGLE, canonical) == google
    assert tensor_names.file_name(HUGGING_FACE["bert"], canonical) == bert
    assert tensor_names.file_name(HUGGING_FACE["distilbert"], canonical) == distilbert


def test_electra_projects_its_embeddings_and_has_no_pooler():
    names = HUGGING_FACE["electra"]
    assert tensor_names.file_name(names, "embedding_projection/kernel") == "embeddings_project.weight"
    assert tensor_names.file_name(names, "pooler_transform/kernel") is None
    assert tensor_names.file_name(HUGGING_FACE["bert"], "embedding_projection/kernel") is None


@pytest.mark.parametrize(
    ("names", "name", "plain"),
    [
        (HUGGING_FACE["bert"], "bert.pooler.dense.bias", "pooler.dense.bias"),
        (HUGGING_FACE["bert"], "bert.embeddings.LayerNorm.gamma", "embeddings.LayerNorm.weight"),
        (HUGGING_FACE["bert"], "embeddings.LayerNorm.beta", "embeddings.LayerNorm.bias"),
        (HUGGING_FACE["electra"], "electra.embeddings_project.bias", "embeddings_project.bias"),
        (HUGGING_FACE["electra"], "bert.pooler.dense.bias", "bert.pooler.dense.bias"),
        (GOOGLE, "bert/embeddings/LayerNorm/gamma", "embeddings/LayerNorm/gamma"),
    ],
)
def test_prefixes_and_old_spellings_are_removed(names, name, plain):
    assert tensor_names.plain_name(names, name) == plain


@pytest.mark.parametrize(
    ("family", "head", "own"),
    [
        ("bert", "cls.predictions.bias", "encoder.layer.0.crossattention.self.query.weight"),
        ("distilbert", "vocab_projector.bias", "pooler.dense.bias"),
        ("electra", "discriminator_predictions.dense.bias", "pooler.dense.bias"),
    ],
)
def test_only_heads_are_left_out(family, head, own):
    assert HUGGING_FACE[family].unused.match(head)
    assert not HUGGING_FACE[family].unused.match(own)
