import json

import pytest

from trainer.benchmarks import ours
from trainer.encoders import random_encoders
from trainer.train import throughput


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_of_each_shape_has_its_time_and_its_work(fused, capsys):
    shapes = {"8": [4, 8], "16": [4, 16]}
    values = {"encoder": "random:tiny", "precision": "bfloat16", "fused": fused, "shapes": shapes, "steps": 2}
    ours.main(["measure_steps", json.dumps(values)])
    figures = json.loads(capsys.readouterr().out)
    assert figures.keys() == {"8", "16", "gflop_8", "gflop_16"}
    assert figures["8"] > 0 < figures["16"]
    architecture = random_encoders.RANDOM_PRESETS["tiny"].architecture
    assert figures["gflop_8"] == throughput.training_flops(architecture, 4 * 8, 4 * 8**2) / 1e9


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_product_has_a_rate(precision):
    assert 0.001 < ours.measure_product(precision, [256, 64, 128], 5)["product"] < 1e6


@pytest.mark.parametrize("fused", [False, True])
def test_an_evaluation_of_an_encoder_has_a_rate(tiny, fused):
    assert ours.evaluate(str(tiny), "float32", fused, [4, 16], 2)["texts_per_second"] > 0


def test_an_export_is_called(finished_run, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("a wonderful film\nan awful film\nthe plot\n", encoding="utf-8")
    figures = ours.serve(f"{finished_run}/export", str(texts), batch=2, calls=5)
    assert 0 < figures["p50_ms"] <= figures["p95_ms"]
    assert figures["texts_per_second"] > 0
