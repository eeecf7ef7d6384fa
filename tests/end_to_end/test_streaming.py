"""How long a training step waits for shards that stream from a bucket whose every request takes 20 ms."""

import pytest
from helpers import python

STEPS = 120
# Each pool is one shard of the sixteen, so that the training goes on reading: seven of them in the steps.
MEASURE = """
import sys, time
import tensorflow as tf
from trainer.train import builder
from trainer.config import loading
from trainer.train import loop
from trainer.train import runs
from trainer.train import steps
settings = ["data.shuffle_examples=1", "data.seq_length=64", "data.pad_multiple=64", "logging.progress=off"]
paths = {"data_dir": "gs://bucket/data", "encoder": "gs://bucket/encoder"}
strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
job = builder.build_job(loading.load_config(None, settings, paths), strategy)
run = runs.open_run(job, "gs://bucket/run", time.monotonic())
train_step = tf.function(steps.build_train_step(job.model, job.optimizer, run.sums, 0, 1.0, 1))
batches = loop.training_batches(run, 0)
waited, took = [], []
for step in range(int(sys.argv[1])):
    began = time.monotonic()
    batch = next(batches)
    waited.append(time.monotonic() - began)
    strategy.run(train_step, args=(batch,))
    run.sums.loss.numpy()  # until it is computed
    took.append(time.monotonic() - began)
# The first batch waits for the first pool, and the first step is traced: both are the start's, not a step's.
print(waited[0], sum(waited[1:]), sum(took[1:]), max(waited[1:]))
"""


@pytest.mark.chaos
def test_a_step_waits_less_than_2_percent_of_its_time_for_shards_from_a_bucket(simulator, tmp_path, capsys):
    encoder, folder = tmp_path / "encoder", tmp_path / "data"
    python("scripts/import_encoder.py", "--source=minilm", f"--output={encoder}", check=True)
    flags = ["--task=movie_snippets", f"--encoder={encoder}", f"--output={folder}"]
    python("scripts/prepare_data.py", *flags, check=True)
    for path in (encoder, folder):
        simulator.python(f'from trainer.storage import fs; fs.copy_folder("{path}", "gs://bucket/{path.name}")')
    with simulator.faults({"do": "slow", "seconds": 0.02, "times": -1}):
        first, waited, took, longest = map(float, simulator.python(MEASURE, str(STEPS), seconds=600).split())
    with capsys.disabled():
        print(
            f"\nminilm, batches of 32 at 20 ms a request: {waited / took:.2%} of a step of "
            f"{took / (STEPS - 1) * 1000:.0f} ms is waiting for input, {longest * 1000:.0f} ms at most; the first "
            f"batch took {first:.1f} s"
        )
    assert waited < 0.02 * took
