"""The meeting of workers, between threads of this process: each with a model_dir of its own, or one for all."""

import concurrent.futures
import time

import pytest
from helpers import free_addresses

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
