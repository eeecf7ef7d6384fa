"""How long a training step waits for shards from a bucket if every request takes 20 ms."""

import pytest
from helpers import python

STEPS = 120
# Each pool is one shard of the sixteen, so that training keeps reading: seven of them in STEPS steps.
MEASURE = """
import sys, time
import tensorflow as tf
from trainer.train import builder
from trainer.config import loading
from trainer.train import loop
from trainer.train import run_files
from trainer.train import runs
from trainer.train import steps
settings = ["data.shuffle_examples=1", "data.seq_length=64", "data.pad_multiple=64", "logging.progress=off"]
paths = {"data_dir": "gs://bucket/data", "encoder": "gs://bucket/encoder"}
strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
job = builder.build_job(loading.load_config(None, settings, paths), strategy)
run = runs.open_run(job, run_files.resolve_run_files("gs://bucket/run"), time.monotonic())
train_step = tf.function(steps.build_train_step(job.model, job.optimizer, run.sums, 0, job.update))
waits, durations = [], []
with loop.training_batches(run, 0) as batches:
    for step in range(int(sys.argv[1])):
        started = time.monotonic()
        batch = next(batches)
        waits.append(time.monotonic() - started)
        strategy.run(train_step, args=(batch,))
        run.sums.loss.numpy()  # waits until the step is computed
        durations.append(time.monotonic() - started)
# The first batch waits for the first pool, and the first step is traced. Neither is part of a later step.
print(waits[0], sum(waits[1:]), sum(durations[1:]), max(waits[1:]))
"""


@pytest.mark.chaos
def test_a_step_waits_for_shards_less_than_2_percent_of_its_time(simulator, tmp_path, capsys):
    encoder, folder = tmp_path / "encoder", tmp_path / "data"
    python("scripts/import_encoder.py", "--source=minilm", f"--output={encoder}", check=True)
    flags = ["--task=movie_snippets", f"--encoder={encoder}", f"--output={folder}"]
    python("scripts/prepare_data.py", *flags, check=True)
    for path in (encoder, folder):
        simulator.python(f'from trainer.storage import fs; fs.copy_folder("{path}", "gs://bucket/{path.name}")')
    with simulator.faults({"do": "slow", "seconds": 0.02, "times": -1}):
        first_wait, total_wait, total_duration, longest_wait = map(
            float, simulator.python(MEASURE, str(STEPS), seconds=600).split()
        )
    with capsys.disabled():
        print(
            f"\nminilm, batches of 32 at 20 ms a request: {total_wait / total_duration:.2%} of a step of "
            f"{total_duration / (STEPS - 1) * 1000:.0f} ms is waiting for input, {longest_wait * 1000:.0f} ms at most; "
            f"the first batch took {first_wait:.1f} s"
        )
    assert total_wait < 0.02 * total_duration
