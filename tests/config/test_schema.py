import dataclasses

from trainer.config import schema


def test_every_key_has_a_description_of_complete_sentences():
    assert tuple(schema.DESCRIPTIONS) == schema.KEYS
    for key, description in schema.DESCRIPTIONS.items():
        assert description[0].isupper(), key
        assert description.endswith("."), key


def test_flatten_joins_sections_and_keys():
    assert dict(schema.flatten({"a": {"b": {"c": 1}}, "d": 2})) == {"a.b.c": 1, "d": 2}


def test_what_does_not_decide_the_result_is_not_fingerprinted():
    keys = schema.fingerprinted(schema.Config())
    assert {"seed", "data.seq_length", "optimizer.learning_rate"} < keys.keys()
    assert set(schema.KEYS) - keys.keys() == {
        *("data_dir", "encoder", "preprocess", "init_from"),
        *("logging.tensorboard", "logging.progress", "logging.mlflow", "logging.wandb"),
        *("logging.report", "logging.peak_flops", "encoders.mirror", "model.fused"),
    }


def test_values_are_read_and_replaced_by_their_keys():
    values = {"encoder": "mine", "encoders.mirror": "gs://bucket/mirror"}
    config = schema.replace_values(schema.Config(seed=3), values)
    assert schema.get_values(config, ["encoders.mirror", "encoder", "seed"]) == {**values, "seed": 3}


def test_a_default_is_the_field_s_own():
    assert schema.DEFAULTS["data.batch_size"] == 32
    assert dict(schema.flatten(dataclasses.asdict(schema.Config()))) == schema.DEFAULTS
