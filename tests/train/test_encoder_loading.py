import dataclasses
import shutil

import pytest
import tensorflow as tf
from fakes.encoders import save_callable, save_for_inference
from helpers import ROOT

from trainer.config import loading
from trainer.data.tokenization import vocabulary_sha256
from trainer.encoders import native, saved_models
from trainer.errors import UsageError, UserError
from trainer.train import builder, encoder_loading


def test_a_sequence_longer_than_the_positions_is_rejected(load, manifest):
    with pytest.raises(UsageError, match=r"data\.seq_length must .*512 .*Received: 513\."):
        encoder_loading.load_encoder(load("data.seq_length=513"), manifest)


def test_data_with_another_vocabulary_is_rejected(load, manifest, tiny, tmp_path):
    other = shutil.copytree(tiny, tmp_path / "other")
    vocabulary = other / "encoder/assets/vocab.txt"
    vocabulary.write_text(vocabulary.read_text().replace("wonderful", "marvellous"))
    with pytest.raises(ValueError, match="must be prepared with the encoder's own vocabulary") as raised:
        encoder_loading.load_encoder(load(f"encoder={other}"), manifest)
    for words in ("--data_dir", str(tiny), f"Prepare it again with --encoder={other}", "or change --encoder"):
        assert words in str(raised.value)


def test_the_dropout_setting_replaces_the_encoders_rates(load, manifest):
    architecture = encoder_loading.load_encoder(load("model.dropout=0.3"), manifest).architecture
    assert (architecture.dropout, architecture.attention_dropout) == (0.3, 0.3)
    architecture = encoder_loading.load_encoder(load(), manifest).architecture
    assert (architecture.dropout, architecture.attention_dropout) == (0.1, 0.1)


@pytest.fixture
def foreign(tmp_path):
    """The folder of an encoder that is of no family."""
    ids = {name: tf.TensorSpec([None, None], tf.int32) for name in native.INPUT_NAMES}
    save_callable(
        tmp_path / "foreign",
        ids,
        lambda table, inputs: {"pooled_output": tf.reduce_mean(tf.gather(table, inputs["input_word_ids"]), 1)},
    )
    return tmp_path / "foreign"


@pytest.mark.parametrize("preset", ["tiny_albert", "tiny_talking_heads"])
def test_every_family_is_rebuilt(load, manifest, make_encoder, preset):
    folder = make_encoder(preset)
    own = dataclasses.replace(
        manifest, vocabulary=dataclasses.replace(manifest.vocabulary, sha256=vocabulary_sha256(f"{folder}/encoder"))
    )
    encoder = encoder_loading.load_encoder(load(f"encoder={folder}", "precision=bfloat16"), own)
    assert (encoder.path, encoder.architecture.family) == ("native", preset.removeprefix("tiny_"))
    assert encoder_loading.build_encoder_layer(encoder, "bfloat16").compute_dtype == "bfloat16"


def test_an_encoder_that_cannot_be_rebuilt_uses_the_hub_layer(load, manifest, foreign, caplog):
    caplog.set_level("INFO", "trainer")
    chosen = load(f"encoder={foreign}", "precision=auto")
    encoder = encoder_loading.load_encoder(chosen, manifest)
    assert encoder.path == "hub"
    (note,) = [record.getMessage() for record in caplog.records if record.name == "trainer.train.encoder_loading"]
    assert "trains through hub.KerasLayer, since it does not return" in note
    assert "float32" in note
    assert "resumed" not in note  # It has no dropout, so that a resumed run is exact.
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    assert builder.resolve_precision(chosen, encoder, strategy).precision == "float32"


def test_the_note_names_the_costs_of_dropout(tiny):
    costs = encoder_loading._costs_of_hub_layer(saved_models.load_saved_model(str(tiny / "encoder")))
    assert "a resumed run is not exact" in costs[1]


def test_the_hub_layer_refuses_by_name_what_it_cannot_do(load, manifest, foreign):
    with pytest.raises(UsageError) as caught:
        encoder_loading.load_encoder(load(f"encoder={foreign}", "precision=bfloat16"), manifest)
    (problem,) = caught.value.problems
    assert (problem.setting, problem.received) == ("precision", "bfloat16")
    assert "hub.KerasLayer" in problem.required
    assert f"{foreign} does, since it does not return" in problem.advice


@pytest.mark.parametrize("preset", ["quickstart", "imdb_minilm", "imdb_tutorial", "glue", "smoke", "movie_ratings"])
def test_a_preset_asks_for_nothing_that_the_hub_layer_refuses(preset):
    config = loading.load_config(str(ROOT / f"configs/{preset}.yaml"), [])
    assert not encoder_loading.find_hub_layer_problems(config, "")


def test_what_does_not_train_through_the_hub_layer_is_refused_unsaid(load, manifest, tmp_path, caplog):
    caplog.set_level("INFO", "trainer")
    save_for_inference(tmp_path)
    with pytest.raises(UserError, match="--encoder"):
        encoder_loading.load_encoder(load(f"encoder={tmp_path}"), manifest)
    assert not [record for record in caplog.records if record.name == "trainer.train.encoder_loading"]
