"""A job whose steps wait for what never comes."""

from helpers import outcome, task
from interruptions import committed_step

from trainer import errors

# trainer.task, whose 12th batch never comes. TensorFlow itself waits for it, without a bound.
STUCK_JOB = """
import itertools, time
from trainer import task
from trainer.data import batching
from trainer.runtime import app, watchdog

watchdog.POLL_INTERVAL_S = 0.1
train_batches = batching.train_batches

def stop_giving(*arguments):
    yield from itertools.islice(train_batches(*arguments), 11)
    watchdog.MAX_WAIT_S = 3.0
    time.sleep(3600)

batching.train_batches = stop_giving
app.run(task.main, task.__doc__)
"""


def test_a_job_whose_batches_never_come_stops_and_resumes(tiny, prepared, tmp_path):
    run = tmp_path / "run"
    flags = [f"--encoder={tiny}", f"--data_dir={prepared}", f"--model_dir={run}", "--strategy=cpu"]
    flags += ["--data.batch_size=8", "--data.seq_length=16", "--training.steps=20", "--training.save_every=5"]
    code, _, error = outcome(STUCK_JOB, *flags)
    assert code == errors.EXIT_STOPPED, error
    assert "in run_inner_loop" in error
    assert "stopped: training steps did not end within 0 minutes. Run the same command again" in error
    assert committed_step(run) == 10
    resumed = task(*flags)
    assert resumed.returncode == 0, resumed.stderr
    assert committed_step(run) == 20
