import pytest

from trainer.encoders import classifier, freezing, native, saved_models

POOLER = {"pooler_transform/kernel", "pooler_transform/bias"}
HEAD = {"classifier/kernel", "classifier/bias"}


@pytest.fixture(scope="module", params=["native", "hub"])
def variables(request, tiny):
    """The trainable variables of a classifier with two layers."""
    saved = saved_models.load_saved_model(str(tiny / "encoder"))
    if request.param == "hub":
        encoder = classifier.build_hub_encoder(saved)
    else:
        encoder = classifier.build_native_encoder(*native.rebuild_encoder(saved), "float32")
    return classifier.build_classifier(encoder, 2, 0.1, seed=0).trainable_variables


def trained(variables, freeze, pooling="pooled"):
    return {native.canonical_name(v.name) for v in freezing.choose_trained_variables(variables, freeze, pooling)}


def test_each_setting_freezes_its_parts_and_those_before(variables):
    everything = trained(variables, "none")
    assert everything == {native.canonical_name(v.name) for v in variables}
    embeddings, first, second = (
        everything - trained(variables, "embeddings"),
        trained(variables, "embeddings") - trained(variables, "layers:1"),
        trained(variables, "layers:1") - trained(variables, "layers:2"),
    )
    assert {name.split("/")[0] for name in embeddings} == {
        "word_embeddings",
        "position_embedding",
        "type_embeddings",
        "embeddings",  # their normalization
    }
    assert {name.split("/")[1] for name in first} == {"layer_0"}
    assert {name.split("/")[1] for name in second} == {"layer_1"}
    assert len(first) == len(second) == 16
    assert trained(variables, "layers:2") == POOLER | HEAD
    assert trained(variables, "encoder") == HEAD
    assert trained(variables, "layers:0") == trained(variables, "embeddings")


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_a_pooler_that_is_not_used_is_not_trained(variables, pooling):
    assert trained(variables, "none") - trained(variables, "none", pooling) == POOLER
    assert trained(variables, "layers:2", pooling) == trained(variables, "encoder", pooling) == HEAD


BERT = ["word_embeddings/embeddings", *(f"transformer/layer_{i}/output/bias" for i in range(12)), "pooler/bias"]
ALBERT = ["word_embeddings/embeddings", "transformer/output/bias", "pooler_transform/bias"]
FOREIGN = ["table", "dense/kernel"]


@pytest.mark.parametrize(
    ("names", "freeze", "required"),
    [
        (BERT, "layers:12", None),
        (BERT, "layers:13", "be layers:12 at most for E"),
        (ALBERT, "embeddings", None),
        (ALBERT, "layers:0", None),
        (ALBERT, "layers:1", "be none, embeddings or encoder for E, all of whose layers share one block"),
        (FOREIGN, "encoder", None),
        (FOREIGN, "embeddings", "be none or encoder for E, whose variables do not tell its layers by their names"),
        (FOREIGN, "layers:0", "be none or encoder for E, whose variables do not tell its layers by their names"),
    ],
)
def test_what_an_encoder_cannot_freeze_is_refused(names, freeze, required):
    problem = freezing.find_freeze_problem(freeze, names, "E")
    assert (problem and (problem.setting, problem.required, problem.received)) == (
        required and ("model.freeze", required, freeze)
    )


@pytest.mark.parametrize("preset", ["tiny_electra", "tiny_albert", "tiny_talking_heads"])
def test_the_embeddings_of_every_family_are_frozen_with_their_projection(preset, tmp_path):
    from trainer.encoders import random_encoders

    own = random_encoders.build_random_encoder(preset, tmp_path).encoder.trainable_variables
    left = {variable.name for variable in freezing.choose_trained_variables(own, "embeddings", "pooled")}
    frozen = [variable.name for variable in own if variable.name not in left]
    assert [name for name in frozen if "transformer" in name or "pooler" in name] == []
    assert any("embedding_projection" in name for name in frozen) == (preset != "tiny_talking_heads")
    assert [name for name in left if "embedding" in name] == []
