"""The peer's side, where make peers has installed it."""

import json
import subprocess

import pytest
from helpers import ROOT

from trainer import child_process
from trainer.benchmarks import peer
from trainer.encoders import bert_configs, random_encoders

PYTHON = ROOT / ".venv-peers/bin/python"
installed = pytest.mark.skipif(not PYTHON.exists(), reason="make peers installs what this needs")


def run(kind: str, **values) -> dict[str, float]:
    command = [str(PYTHON), "-m", "trainer.benchmarks.peer", kind, json.dumps(values)]
    done = subprocess.run(command, capture_output=True, text=True, env=child_process.environment(), timeout=900)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_presets_are_those_of_ours():
    bert_base = {
        "vocab_size": 30522,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
    }
    for name, preset in peer.PRESETS.items():
        described = bert_configs.describe_architecture(random_encoders.RANDOM_PRESETS[name].architecture)
        expected = bert_base | preset
        assert {key: described[key] for key in expected} == expected


@installed
def test_a_step_has_a_time_for_each_shape():
    figures = run("measure_steps", encoder="random:tiny", precision="bfloat16", shapes={"8": [4, 8]}, steps=2)
    assert figures.keys() == {"8"}
    assert figures["8"] > 0
