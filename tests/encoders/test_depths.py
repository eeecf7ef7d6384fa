from pathlib import Path

import pytest

from trainer.encoders import depths


@pytest.mark.parametrize("preset", ["tiny", "tiny_bert_v2", "tiny_electra", "tiny_albert", "tiny_talking_heads"])
def test_every_variable_of_every_family_has_its_depth(preset: str, tmp_path: Path) -> None:
    from trainer.encoders import random_encoders

    variables = random_encoders.build_random_encoder(preset, tmp_path).encoder.trainable_variables
    names = [variable.name for variable in variables] + ["classifier/kernel:0"]
    found = depths.variable_depths(names)
    layers = 1 if preset == "tiny_albert" else 2
    by_depth = {depth: [name for name, at in zip(names, found, strict=True) if at == depth] for depth in set(found)}

    assert set(by_depth) == set(range(layers + 2))
    assert len(by_depth[0]) == (7 if preset in ("tiny_electra", "tiny_albert") else 5)
    assert len({len(by_depth[depth]) for depth in range(1, layers + 1)}) == 1
    assert all("transformer" in name for depth in range(1, layers + 1) for name in by_depth[depth])
    assert len(by_depth[layers + 1]) == 3


def test_layers_are_in_the_order_of_their_numbers() -> None:
    names = [f"encoder/transformer/layer_{layer}/output/bias:0" for layer in range(12)]
    assert depths.variable_depths(names) == list(range(1, 13))


def test_scaffolds_of_a_second_model_count_from_one() -> None:
    names = [f"transformer_scaffold_{number}/self_attention/query/bias:0" for number in (9, 10, 11)]
    assert depths.variable_depths(["word_embeddings/embeddings:0", *names]) == [0, 1, 2, 3]
