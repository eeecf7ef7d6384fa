"""Each family of encoders that is not a BERT: prepared, fine-tuned, killed, resumed, exported, predicted with."""

import json

import pytest
from helpers import python, write_reviews
from interruptions import JobCommand, assert_equal_runs, read_metrics

pytestmark = pytest.mark.long

STEPS = 40
FAMILIES = ("tiny_albert", "tiny_talking_heads")


@pytest.fixture(scope="module")
def make_job(make_encoder, tmp_path_factory):
    """A function preset -> the command of a job, all in bfloat16, with dropout, whose batches are divided in two."""

    def make(preset: str) -> JobCommand:
        folder, encoder = tmp_path_factory.mktemp(preset), make_encoder(preset)
        source = write_reviews(folder / "reviews.csv", 300)
        arguments = ["--task=csv", f"--source={source}", f"--encoder={encoder}", f"--output={folder / 'data'}"]
        python("scripts/prepare_data.py", *arguments, check=True)
        keys = (
            *(f"training.steps={STEPS}", "training.log_every=7", "training.save_every=10", "training.eval_every=20"),
            *("training.accumulation_steps=2", "data.batch_size=16", "data.seq_length=24"),
            *("precision=bfloat16", "eval_precision=bfloat16", "optimizer.learning_rate=2e-3"),
            *("logging.progress=off", "logging.report=off"),
        )
        where = [f"--encoder={encoder}", f"--data_dir={folder / 'data'}", "--strategy=cpu"]
        return JobCommand([*where, *(f"--set={key}" for key in keys)], 1)

    return make


@pytest.mark.parametrize("preset", FAMILIES)
def test_a_killed_run_equals_an_uninterrupted_one_and_predicts(preset, make_job, tmp_path):
    job = make_job(preset)
    uninterrupted = job.run_to_end(tmp_path / "uninterrupted")
    killed = job.run_interrupted(tmp_path / "killed", "training")
    assert_equal_runs(killed, uninterrupted)
    result = json.loads((killed / "result.json").read_text())
    assert (result["encoder"]["path"], result["precision"]) == ("native", "bfloat16")
    assert 0 <= result["export_difference"] <= 0.05
    losses = [line["loss"] for line in read_metrics(killed, "train")]
    assert len(losses) == 6
    assert all(0 < loss < 1 for loss in losses)
    done = python("scripts/predict.py", f"--model={killed}/export", "--format=jsonl", "a superb film", check=True)
    assert set(json.loads(done.stdout)["scores"]) == {"positive", "negative"}
