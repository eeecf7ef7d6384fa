import json

import pytest
from helpers import outcome

CODE = """
import dataclasses, json, sys
from absl import flags
from trainer.config import flags as config_flags
from trainer.config import loading, schema
flags.FLAGS(sys.argv)
config = loading.load_config(config_flags.CONFIG.value, (), config_flags.given_settings([]))
print(json.dumps(dict(schema.flatten(dataclasses.asdict(config)))))
"""


def read(*arguments: str) -> dict:
    code, out, error = outcome(CODE, *arguments)
    assert code == 0, error
    return json.loads(out)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--optimizer.learning_rate=3e-5", "--data.group_by_length=off", "--seed=7", "--encoder=tiny"),
        ("--optimizer.learning_rate", "3e-5", "--data.group_by_length", "off", "--seed", "7", "--encoder", "tiny"),
        ("--set=optimizer.learning_rate=3e-5", "--set=data.group_by_length=off", "--set=seed=7", "--set=encoder=tiny"),
    ],
)
def test_a_key_is_set_by_its_flag_or_by_set(arguments):
    keys = read(*arguments)
    assert (keys["optimizer.learning_rate"], keys["data.group_by_length"]) == (3e-5, False)
    assert (keys["seed"], keys["encoder"]) == (7, "tiny")


def test_flags_win_over_set_and_set_over_the_preset(tmp_path):
    preset = tmp_path / "preset.yaml"
    preset.write_text("seed: 1\ntraining: {epochs: 2, log_every: 5}\ndata: {batch_size: 8}\n", encoding="utf-8")
    keys = read(f"--config={preset}", "--set=seed=2", "--set=data.batch_size=16", "--seed=3", "--training.steps=9")
    assert (keys["seed"], keys["data.batch_size"], keys["training.log_every"]) == (3, 16, 5)
    assert (keys["training.steps"], keys["training.epochs"]) == (9, None)


def test_none_unsets_what_the_preset_set(tmp_path):
    preset = tmp_path / "preset.yaml"
    preset.write_text("training: {steps: 5}\n", encoding="utf-8")
    assert read(f"--config={preset}", "--training.steps=none")["training.steps"] is None
