"""The meeting of workers, each with a model_dir of its own or one for all: threads of this process, then commands."""

import concurrent.futures
import contextlib
import json
import os
import shutil
import socket
import subprocess
import time

import pytest
from helpers import free_addresses, task

from trainer.distributed.cluster_config import Cluster
from trainer.errors import UsageError, UserError
from trainer.train import run_files, workers


def meet(folders, timeout_s=10.0, signatures=None) -> list[Exception | None]:
    """What the meeting raises on each worker; each has a model_dir."""
    addresses = free_addresses(len(folders))

    def one(index: int) -> Exception | None:
        files = run_files.resolve_run_files(str(folders[index]))
        try:
            signature = (signatures or [{"seed": 1}] * len(folders))[index]
            workers.meet_workers(Cluster(addresses, index), files, signature, timeout_s)
        except ValueError as error:
            return error
        return None

    with concurrent.futures.ThreadPoolExecutor(len(folders)) as executor:
        return list(executor.map(one, range(len(folders))))


@pytest.fixture
def folders(tmp_path):
    for name in ("run", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "mounted elsewhere").symlink_to(tmp_path / "run")
    return tmp_path


def test_workers_that_see_one_folder_meet_and_leave_nothing(folders):
    assert meet([folders / "run", folders / "mounted elsewhere", folders / "run"]) == [None] * 3
    assert list((folders / "run").iterdir()) == []


@pytest.mark.parametrize("other", ["other", "missing", "missing/below"])
def test_a_worker_that_does_not_see_the_folder_is_named_on_every_worker(folders, other):
    chief, seeing, blind = meet([folders / "run", folders / "run", folders / other], timeout_s=2)
    assert type(blind) is UsageError
    (problem,) = blind.problems
    assert problem.setting == "--model_dir"
    assert problem.received.startswith(f"{folders / other} on worker 2 (127.0.0.1:")
    for error in (chief, seeing):
        assert type(error) is UserError
        assert str(problem) in str(error)
    assert list((folders / "run").iterdir()) == []


def test_all_workers_that_do_not_see_the_folder_are_named(folders):
    chief, *_ = meet([folders / "run", folders / "other", folders / "missing"], timeout_s=1)
    assert [problem.received[:8] for problem in chief.problems] == ["worker 1", "worker 2"]


def test_a_folder_that_appears_later_is_waited_for(folders):
    """As on NFS, where a client remembers for a while that a name was missing."""
    late = folders / "late"

    def appear():
        time.sleep(1.5)
        late.symlink_to(folders / "run")

    with concurrent.futures.ThreadPoolExecutor() as executor:
        appeared = executor.submit(appear)
        assert meet([folders / "run", late]) == [None, None]
        appeared.result()


def test_the_mark_of_a_chief_that_was_killed_is_removed(folders):
    old = folders / "run" / f"{workers.MARK_PREFIX}{'0' * 32}"
    old.touch()
    assert meet([folders / "run"] * 2) == [None, None]
    assert not old.exists()


def test_a_disk_and_a_bucket_are_no_shared_folder(folders, simulator, monkeypatch):
    for name, value in simulator.environment().items():
        monkeypatch.setenv(name, value)
    bucket = "gs://bucket/run"
    assert meet([bucket, bucket]) == [None, None]
    for pair in ([folders / "run", bucket], [bucket, folders / "run"]):
        chief, worker = meet(pair, timeout_s=1)
        assert type(worker) is UsageError
        assert f"{pair[1]} on worker 1" in str(worker)
        assert str(pair[1]) in str(chief)


def test_workers_of_other_jobs_do_not_look_for_the_folder(folders):
    started = time.monotonic()
    errors = meet([folders / "run", folders / "other"], signatures=[{"seed": 1}, {"seed": 2}])
    assert [type(error) for error in errors] == [UsageError] * 2
    assert "seed: 1 here, 2 there" in str(errors[0])
    assert time.monotonic() - started < 5


# --- The command itself -----------------------------------------------------------------------------


def cluster(addresses, index=0) -> dict[str, str]:
    """The environment of that worker."""
    described = {"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": index}}
    return {**os.environ, "TF_CONFIG": json.dumps(described)}


def run_workers(*commands) -> list[subprocess.CompletedProcess]:
    """Run trainer.task as the workers of a job, the chief first, each with flags of its own."""
    addresses = free_addresses(len(commands))
    with concurrent.futures.ThreadPoolExecutor() as executor:
        started = [
            executor.submit(task, "--cluster_timeout=60", *arguments, env=cluster(addresses, index))
            for index, arguments in enumerate(commands)
        ]
        return [future.result() for future in started]


def test_a_worker_without_the_data_is_named_by_all_with_its_host(flags, tmp_path):
    without = [flag for flag in flags if not flag.startswith("--data_dir")]
    folder = f"--model_dir={tmp_path / 'run'}"
    chief, worker = run_workers([*flags, folder], [*without, f"--data_dir={tmp_path / 'missing'}", folder])
    assert (chief.returncode, worker.returncode) == (1, 1)
    assert "error: Every worker must be able to run the job. Received: worker 1 (127.0.0.1:" in chief.stderr
    for done in (chief, worker):
        assert f"Received: {tmp_path / 'missing'}, which does not exist" in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_worker_that_cannot_make_the_model_dir_is_named_by_all(flags, tmp_path):
    (tmp_path / "file").touch()
    chief, worker = run_workers(
        [*flags, f"--model_dir={tmp_path / 'run'}"], [*flags, f"--model_dir={tmp_path / 'file/run'}"]
    )
    assert (chief.returncode, worker.returncode) == (1, 2)
    assert "Received: worker 1 (127.0.0.1:" in chief.stderr
    for done in (chief, worker):
        assert f"{tmp_path / 'file'} is not a folder" in done.stderr


def test_a_worker_on_another_disk_is_named_by_all_and_nothing_is_written(flags, tmp_path):
    """Its disk has a copy of the run."""
    for name in ("run", "copy"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "identity.json").write_text("{}")
    chief, worker = run_workers(
        [*flags, f"--model_dir={tmp_path / 'run'}"],
        [*flags, f"--model_dir={tmp_path / 'copy'}", "--cluster_timeout=5"],
    )
    assert (chief.returncode, worker.returncode) == (1, 2)
    for done in (chief, worker):
        assert f"--model_dir must be a folder that all workers share. Received: {tmp_path / 'copy'}" in done.stderr
        assert "worker 1 (127.0.0.1:" in done.stderr
    for name in ("run", "copy"):
        assert {path.name for path in (tmp_path / name).iterdir()} <= {"identity.json", ".lock"}


def test_a_worker_that_meets_nobody_since_the_run_was_finished_ends_well(flags, finished_run, tmp_path):
    folder = shutil.copytree(finished_run, tmp_path / "run", ignore=shutil.ignore_patterns("result.json"))
    addresses = free_addresses(2)
    arguments = [f"--model_dir={folder}", "--strategy=multi_worker", "--cluster_timeout=6"]
    with concurrent.futures.ThreadPoolExecutor() as executor:
        worker = executor.submit(task, *flags, *arguments, env=cluster(addresses, 1))
        while not worker.done():
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", int(addresses[1].rpartition(":")[2])), timeout=1).close()
                shutil.copy(finished_run / "result.json", folder)  # The chief has finished its export.
            time.sleep(0.1)
    assert worker.result().returncode == 0, worker.result().stderr
    assert f"{folder} holds this run, finished: nothing to do." in worker.result().stderr


def test_a_worker_that_waits_in_vain_says_for_whom_and_leaves_nothing(flags, tmp_path):
    addresses = free_addresses(2)
    arguments = [f"--model_dir={tmp_path / 'run'}", "--strategy=multi_worker", "--cluster_timeout=1"]
    done = task(*flags, *arguments, env=cluster(addresses))
    assert done.returncode == 1
    assert "error: Every worker must be reached within 1 s. Received: no answer from worker 1" in done.stderr
    assert f"({addresses[1]})" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
