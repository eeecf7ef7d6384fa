import dataclasses
import shutil

import numpy as np
import pytest
import tensorflow as tf
from fakes.encoders import save_for_inference, save_mean_of_embeddings
from helpers import ROOT

from trainer.config import loading
from trainer.data.tokenization import vocabulary_sha256
from trainer.encoders import native, rebuild_cache, saved_models
from trainer.errors import UsageError, UserError
from trainer.train import builder, encoder_loading


def test_a_sequence_longer_than_the_positions_is_rejected(load, manifest):
    with pytest.raises(UsageError, match=r"data\.seq_length must .*512 .*Received: 513\."):
        encoder_loading.load_encoder(load("data.seq_length=513"), manifest)


def test_positions_are_extended_to_the_setting(load, manifest):
    chosen = load("data.seq_length=600", "model.max_positions=600")
    encoder = encoder_loading.load_encoder(chosen, manifest)
    assert encoder.architecture.max_positions == 600
    model = builder.build_job(chosen, tf.distribute.OneDeviceStrategy("/cpu:0")).model
    (table,) = (v for v in model.trainable_variables if native.is_position_table(v.name))
    assert table.shape == (600, 64)


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        (("model.max_positions=511",), {"model.max_positions": "511"}),
        (("model.max_positions=4097",), {"model.max_positions": "4097"}),
        (("model.max_positions=600", "data.seq_length=601"), {"data.seq_length": "601"}),
        (("model.freeze=layers:3",), {"model.freeze": "layers:3"}),
    ],
)
def test_what_the_encoder_is_too_small_for_is_refused(load, manifest, settings, refused):
    with pytest.raises(UsageError) as raised:
        encoder_loading.load_encoder(load(*settings), manifest)
    assert {problem.setting: problem.received for problem in raised.value.problems} == refused


def test_an_encoder_is_loaded_and_compared_once(load, manifest, tmp_path, monkeypatch):
    monkeypatch.setenv("HUBTUNE_CACHE_DIR", str(tmp_path / "cache"))
    first = encoder_loading.load_encoder(load(), manifest)
    with monkeypatch.context() as without:
        without.delattr(saved_models, "load_encoder")
        without.delattr(native, "rebuild_encoder")
        again = encoder_loading.load_encoder(load("model.dropout=0.2", "model.max_positions=600"), manifest)
        with pytest.raises(UsageError, match=r"model\.freeze must be layers:2 at most .* Received: layers:3\."):
            encoder_loading.load_encoder(load("model.freeze=layers:3"), manifest)
    assert (again.sha256, again.path) == (first.sha256, "native")
    assert again.architecture == dataclasses.replace(
        first.architecture, dropout=0.2, attention_dropout=0.2, max_positions=600
    )
    assert all(np.array_equal(a, b) for a, b in zip(first.values, again.values, strict=True))


@pytest.fixture
def foreign(tmp_path):
    """The folder of an encoder that is of no family."""
    save_mean_of_embeddings(tmp_path / "foreign")
    return tmp_path / "foreign"


@pytest.mark.parametrize(
    "setting",
    [
        *("model.max_positions=600", "model.pooling=mean", "model.freeze=embeddings"),
        *(
            "model.recompute=true",
            "model.compile=xla",
            "model.fused=on",
            "precision=bfloat16",
            "eval_precision=bfloat16",
        ),
    ],
)
def test_what_the_hub_layer_cannot_do_is_refused_by_its_name(load, manifest, foreign, setting):
    key, _, value = setting.partition("=")
    with pytest.raises(UsageError, match=rf"^{key} must .* Received: {value}\.") as raised:
        encoder_loading.load_encoder(load(f"encoder={foreign}", setting), manifest)
    assert str(foreign) in str(raised.value)


def test_the_hub_layer_follows_what_it_can(load, manifest, foreign):
    automatic = ("model.compile=auto", "model.fused=auto", "precision=auto")
    chosen = load(f"encoder={foreign}", "model.freeze=encoder", *automatic)
    assert encoder_loading.load_encoder(chosen, manifest).path == "hub"


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


@pytest.mark.parametrize("preset", ["tiny_albert", "tiny_talking_heads"])
def test_every_family_is_rebuilt(load, manifest, make_encoder, preset):
    folder = make_encoder(preset)
    own = dataclasses.replace(
        manifest, vocabulary=dataclasses.replace(manifest.vocabulary, sha256=vocabulary_sha256(f"{folder}/encoder"))
    )
    encoder = encoder_loading.load_encoder(load(f"encoder={folder}", "precision=bfloat16"), own)
    assert (encoder.path, encoder.architecture.family) == ("native", preset.removeprefix("tiny_"))
    assert encoder_loading.build_encoder_layer(encoder, "bfloat16", "pooled").compute_dtype == "bfloat16"


def test_fused_layers_are_checked_where_they_are_used(load, manifest, monkeypatch, tmp_path):
    monkeypatch.setenv("HUBTUNE_CACHE_DIR", str(tmp_path))
    for setting, checked in (("off", False), ("auto", True), ("on", True)):
        encoder = encoder_loading.load_encoder(load(f"model.fused={setting}"), manifest)
        assert rebuild_cache.find_rebuilt(encoder.folder, encoder.sha256).fused_checked == checked


def test_an_encoder_that_cannot_be_rebuilt_uses_the_hub_layer(load, manifest, foreign, caplog):
    caplog.set_level("INFO", "trainer")
    chosen = load(f"encoder={foreign}", "precision=auto", "eval_precision=auto")
    encoder = encoder_loading.load_encoder(chosen, manifest)
    assert encoder.path == "hub"
    (note,) = [record.getMessage() for record in caplog.records if record.name == "trainer.train.encoder_loading"]
    assert "trains through hub.KerasLayer, since it does not return" in note
    assert "float32" in note
    assert "resumed" not in note  # It has no dropout, so that a resumed run is exact.
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    resolved = builder.resolve_precision(chosen, encoder, strategy)
    assert (resolved.precision, resolved.eval_precision) == ("float32", "float32")


def test_the_note_names_the_costs_of_dropout(tiny):
    costs = encoder_loading._costs_of_hub_layer(saved_models.load_saved_model(str(tiny / "encoder")))
    assert "a resumed run is not exact" in costs[1]


@pytest.mark.parametrize("preset", ["quickstart", "imdb_minilm", "imdb_tutorial", "glue", "smoke", "movie_ratings"])
def test_a_preset_asks_for_nothing_that_the_hub_layer_refuses(preset):
    config = loading.load_config(str(ROOT / f"configs/{preset}.yaml"), [])
    assert not encoder_loading.find_hub_layer_problems(config, 512, "")


def test_what_does_not_train_through_the_hub_layer_is_refused_unsaid(load, manifest, tmp_path, caplog):
    caplog.set_level("INFO", "trainer")
    save_for_inference(tmp_path)
    with pytest.raises(UserError, match="--encoder"):
        encoder_loading.load_encoder(load(f"encoder={tmp_path}"), manifest)
    assert not [record for record in caplog.records if record.name == "trainer.train.encoder_loading"]
