"""A job with averaged weights and layer-wise rates: interrupted, evaluated, exported, and continued by another."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from helpers import python
from interruptions import assert_equal_runs, read_newest_checkpoint

pytestmark = pytest.mark.long

STEPS = 120
# With one evaluation, at the end, the newest checkpoint has the averages that were evaluated.
SETTINGS = ("optimizer.ema=0.9", "optimizer.layer_decay=0.8", f"training.eval_every={STEPS}")


@pytest.fixture(scope="module")
def make_command(make_job_command):
    """A function (name of STRATEGIES) -> the command of the job."""
    return lambda strategy: make_job_command(strategy, STEPS).with_settings(*SETTINGS)


@pytest.fixture(scope="module")
def averaged(make_command, tmp_path_factory) -> Path:
    """The model_dir of the job, not interrupted."""
    return make_command("cpu").run_to_end(tmp_path_factory.mktemp("averaged") / "run")


def weights(folder: Path) -> dict[str, np.ndarray]:
    """The model's weights in the newest checkpoint of a series, by key."""
    tensors = read_newest_checkpoint(folder)
    return {key: value for key, value in tensors.items() if key.startswith("model/") and ".OPTIMIZER_SLOT" not in key}


def test_a_killed_run_with_averages_ends_bit_for_bit_like_another(averaged, make_command, tmp_path):
    killed = make_command("cpu").run_interrupted(tmp_path / "run", "training", "after an evaluation", "test")
    assert_equal_runs(killed, averaged)


def test_averages_are_the_best_weights_and_not_the_trained_ones(averaged):
    best_step = json.loads((averaged / "result.json").read_text())["best_step"]
    trained, kept = weights(averaged / "checkpoints"), weights(averaged / "best")
    averages = [
        value for key, value in read_newest_checkpoint(averaged / "checkpoints").items() if key.startswith("averages/")
    ]
    assert trained.keys() == kept.keys()
    assert len(averages) == len(kept)
    assert best_step == STEPS  # Otherwise the checkpoint has the averages of another step.
    assert all(not np.array_equal(trained[key], kept[key]) for key in kept)
    unmatched = [key for key in kept if not any(np.array_equal(kept[key], average) for average in averages)]
    assert unmatched == []


def test_an_evaluation_of_averages_repeats_the_result(averaged):
    output = python("-m", "trainer.task", "--mode=evaluate", f"--model_dir={averaged}", check=True).stdout
    test = json.loads((averaged / "result.json").read_text())["test"]
    assert f"{test['accuracy']:.4f}" in output


def test_an_encoder_that_is_exported_has_the_averages(averaged, tmp_path):
    arguments = [f"--model_dir={averaged}", f"--output={tmp_path / 'out'}", "--format=hugging_face"]
    python("scripts/export_encoder.py", *arguments, check=True)
    exported = safetensors.numpy.load_file(tmp_path / "out/model.safetensors")
    kept = [np.sort(value, axis=None) for value in weights(averaged / "best").values() if value.dtype == np.float32]
    assert len(exported) > 30
    for value in exported.values():  # Kernels are transposed.
        flat = np.sort(value, axis=None)
        assert any(np.array_equal(flat, other) for other in kept)


def test_a_run_that_starts_from_averages_averages_from_them(averaged, make_job_command, tmp_path):
    job = make_job_command("cpu", 1)
    job = job.with_settings("optimizer.ema=0.999999", "optimizer.learning_rate=1e-12", f"init_from={averaged}")
    child = job.run_to_end(tmp_path / "run")
    before, after = weights(averaged / "best"), weights(child / "best")
    assert before.keys() == after.keys()
    assert all(np.allclose(before[key], after[key], atol=1e-6, rtol=0) for key in before)
