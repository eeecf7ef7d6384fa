"""A job on the hosts of a remote TPU, which fakes.tpu_hosts has servers for, against one on a single host or CPU."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from fakes import tpu_hosts
from fakes.encoders import save_callable
from helpers import ROOT, excerpt, python, write_reviews
from interruptions import checkpoint_list, committed_step, read_metrics, read_newest_checkpoint

from trainer.encoders import native

START_TIMEOUT_S = 900  # from the start of a job to its first checkpoint
EXIT_TIMEOUT_S = 30  # from the death of a host, or a signal to the job, to its exit
HANG_TIMEOUT_S = 45  # from the silence of a host to the exit of the job
KEYS = (
    *("training.log_every=10", "training.eval_every=100", "data.batch_size=6", "data.seq_length=24"),
    "data.pad_multiple=8",  # Three widths, as a TPU has them too.
    *("optimizer.learning_rate=1e-4", "model.dropout=0", "precision=float32", "logging.progress=off"),
    "logging.report=off",
)


@pytest.fixture
def start_job(tiny, prepared, tmp_path):
    """A function (model_dir's name, steps, flags) -> the process of a job. Its output is in a file beside model_dir."""

    def start(name: str, steps: int, *flags: str) -> subprocess.Popen:
        keys = [f"--set={key}" for key in (*KEYS, f"training.steps={steps}", "training.save_every=10")]
        if any(flag.startswith("--mode=") for flag in flags):
            keys = []  # Other modes take the run's own.
        places = [f"--encoder={tiny}", f"--data_dir={prepared}", f"--model_dir={tmp_path / 'job' / name}"]
        command = [sys.executable, "-m", "fakes.tpu_hosts", *places, *keys, *flags]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        (tmp_path / "job").mkdir(exist_ok=True)
        with (tmp_path / "job" / f"{name}.log").open("a") as log:
            return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)

    return start


def wait_for_checkpoint(process: subprocess.Popen, model_dir: Path) -> None:
    """Until the first one is committed, or the process has ended."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not checkpoint_list(model_dir) and process.poll() is None:
        assert time.monotonic() < deadline, excerpt(model_dir.with_suffix(".log").read_text())
        time.sleep(0.02)


def end(process: subprocess.Popen, model_dir: Path, timeout_s: float = 900) -> tuple[int, str]:
    """The exit code and the output."""
    try:
        code = process.wait(timeout_s)
    finally:
        process.kill()
    return code, excerpt(model_dir.with_suffix(".log").read_text())


def assert_close_runs(model_dir: Path, expected_dir: Path) -> None:
    """Parameters within 1e-5, and the log lines of the same examples."""
    tensors, expected = (read_newest_checkpoint(run / "checkpoints") for run in (model_dir, expected_dir))
    assert tensors.keys() == expected.keys()
    numbers = [key for key in expected if expected[key].dtype.kind == "f"]
    largest = max(float(np.abs(tensors[key] - expected[key]).max()) for key in numbers)
    print(f"{model_dir.name}: the largest difference of a parameter or a slot is {largest:.1e}")
    assert largest <= 1e-5
    losses = []
    for line, other in zip(read_metrics(model_dir), read_metrics(expected_dir), strict=True):
        for name in ("step", "split", "examples", "learning_rate"):
            assert line.get(name) == other.get(name)
        losses.append(abs(line["loss"] / other["loss"] - 1))
    print(f"{model_dir.name}: the largest relative difference of a line's loss is {max(losses):.1e}")
    assert max(losses) <= 1e-4


def test_two_hosts_of_a_tpu_train_as_one_cpu_does(start_job, tmp_path):
    job = tmp_path / "job"
    cpu = start_job("cpu", 20, "--strategy=cpu")
    with tpu_hosts.running(2, 2, hidden=job) as hosts:
        code, output = end(start_job("hosts", 20, "--strategy=tpu", f"--tpu={hosts.tpu}"), job / "hosts")
    assert code == 0, output
    code, output = end(cpu, job / "cpu")
    assert code == 0, output
    assert_close_runs(job / "hosts", job / "cpu")
    assert (job / "hosts/export/saved_model.pb").exists()


@pytest.mark.chaos
@pytest.mark.parametrize(("count", "cores"), [(2, 2), (4, 1)])
def test_a_job_that_loses_a_host_ends_with_75_and_resumes(start_job, tmp_path, count, cores):
    job = tmp_path / "job"
    background = "--set=training.background_saves=true"
    with tpu_hosts.running(1, count * cores, hidden=job) as host:
        code, output = end(start_job("one", 200, "--strategy=tpu", f"--tpu={host.tpu}", background), job / "one")
    assert code == 0, output
    with tpu_hosts.running(count, cores, hidden=job) as hosts:
        process = start_job("hosts", 200, "--strategy=tpu", f"--tpu={hosts.tpu}", background)
        wait_for_checkpoint(process, job / "hosts")
        hosts.processes[-1].kill()
        code, output = end(process, job / "hosts", EXIT_TIMEOUT_S)
    assert code == 75, output
    assert "stopped: a host of the TPU is gone" in output
    with tpu_hosts.running(count, cores, hidden=job) as hosts:
        code, output = end(start_job("hosts", 200, "--strategy=tpu", f"--tpu={hosts.tpu}", background), job / "hosts")
    assert code == 0, output
    assert_close_runs(job / "hosts", job / "one")


@pytest.mark.chaos
def test_the_same_hosts_serve_a_stop_a_resumed_run_and_the_other_modes(start_job, tmp_path):
    run = tmp_path / "job/run"
    with tpu_hosts.running(2, 1, hidden=run.parent) as hosts:
        flags = ("--strategy=tpu", f"--tpu={hosts.tpu}")
        process = start_job("run", 200, *flags)
        wait_for_checkpoint(process, run)
        process.send_signal(signal.SIGTERM)
        code, output = end(process, run, EXIT_TIMEOUT_S)
        assert code == 75, output
        assert "stopped by SIGTERM" in output
        stopped_at = committed_step(run)
        assert 10 <= stopped_at < 200
        for mode in ((), ("--mode=evaluate",), ("--mode=export",)):
            code, output = end(start_job("run", 200, *flags, *mode), run)
            assert code == 0, output
    assert committed_step(run) == 200
    assert [line["step"] for line in read_metrics(run, "train")] == list(range(10, 201, 10))


@pytest.mark.chaos
def test_a_shard_that_vanishes_ends_a_job_on_remote_hosts(start_job, prepared, tmp_path):
    run, data = tmp_path / "job/run", tmp_path / "data"
    shutil.copytree(prepared, data)
    with tpu_hosts.running(2, 1, hidden=run.parent) as hosts:
        # Shards are read again in each epoch, unless all their examples are held.
        flags = (f"--data_dir={data}", "--data.shuffle_examples=60")
        process = start_job("run", 200, "--strategy=tpu", f"--tpu={hosts.tpu}", *flags)
        wait_for_checkpoint(process, run)
        for shard in data.glob("train*"):
            shard.unlink()
        code, output = end(process, run)
    assert code == 1, output
    assert str(data) in output
    assert "Traceback" not in output


@pytest.mark.chaos
def test_a_host_that_hangs_ends_the_job_with_75(start_job, tmp_path):
    run = tmp_path / "job/run"
    with tpu_hosts.running(2, 1, hidden=run.parent) as hosts:
        process = start_job("run", 200, "--strategy=tpu", f"--tpu={hosts.tpu}")
        wait_for_checkpoint(process, run)
        hosts.processes[-1].send_signal(signal.SIGSTOP)
        started = time.monotonic()
        code, output = end(process, run, HANG_TIMEOUT_S)
        print(f"from the silence of a host to the exit: {time.monotonic() - started:.1f} s")
    assert code == 75, output
    assert "stopped: a host of the TPU is gone" in output
    assert "no answer for" in output


@pytest.mark.chaos
def test_an_encoder_of_the_hub_s_layer_trains_on_remote_hosts(start_job, make_encoder, tmp_path):
    run, encoder = tmp_path / "job/run", tmp_path / "foreign"
    ids = {name: tf.TensorSpec([None, None], tf.int32) for name in native.INPUT_NAMES}

    def pool(table, inputs):
        return {"pooled_output": tf.reduce_mean(tf.gather(table, inputs["input_word_ids"] % 16), 1)}

    save_callable(encoder / "encoder", ids, pool)
    shutil.copytree(make_encoder("tiny") / "preprocess", encoder / "preprocess")
    reviews = write_reviews(tmp_path / "reviews.csv", 300)
    arguments = ["--task=csv", f"--source={reviews}", f"--encoder={encoder}", f"--output={tmp_path / 'data'}"]
    python("scripts/prepare_data.py", *arguments, check=True)
    places = (f"--encoder={encoder}", f"--data_dir={tmp_path / 'data'}")
    with tpu_hosts.running(2, 1, hidden=run.parent) as hosts:
        code, output = end(start_job("run", 20, "--strategy=tpu", f"--tpu={hosts.tpu}", *places), run)
    assert code == 0, output
