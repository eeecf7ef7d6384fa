"""A folder on a disk of several machines has one holder at a time.

The machines are processes here, whose locks do not reach each other: each machine has a lock file of its own. No NFS.
"""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from helpers import start

LEASE_S = 3.0
HOLD = """
import sys, time
from trainer.runtime import logs
from trainer.storage import disk_lease, local
logs.configure()
disk_lease.LEASE_S, disk_lease.RENEW_S, disk_lease.GRACE_S, disk_lease.SETTLE_S = 3.0, 0.25, 1.0, 1.0
folder, machine, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
with open(f"{folder}/lock of {machine}", "a+") as file:
    lock = (lambda: None) if machine == "without locks" else (lambda: local._try_lock(file))
    with disk_lease.hold_lease(folder, local.describe_process(), machine, lock, file.fileno()) as other:
        print("held" if other is None else f"refused: {other}", flush=True)
        time.sleep(seconds if other is None else 0)
print("ended", flush=True)
"""


def hold(folder, machine: str, seconds: float = 0) -> subprocess.Popen:
    return start(HOLD, folder, machine, seconds)


@pytest.fixture
def holder(tmp_path):
    process = hold(tmp_path, "a", 60)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def heartbeat_of(process) -> int:
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(child)


def end_machine(process) -> None:
    """Kill a run and its heartbeat at once, as the end of their machine does."""
    heartbeat = heartbeat_of(process)
    os.kill(heartbeat, signal.SIGSTOP)  # It must not notice the end of the run.
    process.kill()
    os.kill(heartbeat, signal.SIGKILL)
    process.wait()


def test_a_holder_that_is_alive_is_named_on_its_machine_and_elsewhere(tmp_path, holder):
    for machine in ("a", "b", "without locks"):
        out, _ = hold(tmp_path, machine).communicate(timeout=120)
        assert out.startswith("refused: ")
        assert json.loads(out.splitlines()[0].removeprefix("refused: "))["pid"] == str(holder.pid)


def test_a_run_that_is_killed_releases_the_folder_at_once_for_all_machines(tmp_path, holder):
    for machine in ("a", "b"):
        started = time.monotonic()
        holder.kill()
        holder.wait()
        holder = hold(tmp_path, machine, 60)
        assert holder.stdout.readline() == "held\n"
        assert time.monotonic() - started < LEASE_S
    holder.kill()
    holder.communicate()


def test_a_run_that_ends_leaves_no_lease(tmp_path):
    assert hold(tmp_path, "a").communicate(timeout=120)[0] == "held\nended\n"
    assert not (tmp_path / ".lease").exists()


def test_a_machine_that_is_gone_is_replaced_after_a_lease(tmp_path, holder):
    end_machine(holder)
    started = time.monotonic()
    out, error = hold(tmp_path, "b").communicate(timeout=120)
    assert out == "held\nended\n"
    assert LEASE_S < time.monotonic() - started < LEASE_S + 5
    assert f'"pid": "{holder.pid}"' in error


def test_on_the_machine_of_a_dead_holder_its_lease_is_replaced_at_once(tmp_path, holder):
    end_machine(holder)
    started = time.monotonic()
    assert hold(tmp_path, "a").communicate(timeout=120)[0] == "held\nended\n"
    assert time.monotonic() - started < LEASE_S


def outcomes(processes) -> list[str]:
    """What each process says, sorted."""
    try:
        return sorted(process.stdout.readline().split(":")[0].strip() for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("machines", [["a", "b", "c"], ["b", "b", "c"], ["without locks"] * 3])
def test_of_several_that_start_at_once_one_holds_the_folder(tmp_path, machines):
    assert outcomes([hold(tmp_path, machine, 60) for machine in machines]) == ["held", "refused", "refused"]


@pytest.mark.parametrize("machines", [["b", "c"], ["b", "b"], ["without locks"] * 2])
def test_of_several_that_replace_a_dead_holder_at_once_one_succeeds(tmp_path, holder, machines):
    end_machine(holder)
    assert outcomes([hold(tmp_path, machine, 60) for machine in machines]) == ["held", "refused"]


def test_a_lock_that_a_server_keeps_for_a_lost_machine_does_not_lock_out(tmp_path, holder):
    end_machine(holder)
    kept = start(
        "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print(); input()", tmp_path / "lock of b"
    )
    try:
        kept.stdout.readline()
        second = hold(tmp_path, "b", 60)
        assert second.stdout.readline() == "held\n"
    finally:
        kept.kill()
        kept.communicate()
    try:  # The lock is free by now, but not the folder.
        assert hold(tmp_path, "b").communicate(timeout=120)[0].startswith("refused: ")
    finally:
        second.kill()
        second.communicate()


def test_a_run_whose_lease_another_machine_has_is_killed(tmp_path, holder):
    (tmp_path / "other").write_text(json.dumps({"host": "other", "token": "new", "mount": "b", "renewals": 0}))
    (tmp_path / "other").rename(tmp_path / ".lease")
    assert holder.wait(10) == -signal.SIGKILL
    error = holder.communicate()[1]
    assert "the run has lost its --model_dir" in error
    assert '"host": "other"' in error
    assert json.loads((tmp_path / ".lease").read_text())["host"] == "other"


def test_a_run_that_cannot_renew_is_killed_before_another_may_start(tmp_path, holder):
    (tmp_path / ".lease").unlink()
    (tmp_path / ".lease").mkdir()
    started = time.monotonic()
    assert holder.wait(10) == -signal.SIGKILL
    assert time.monotonic() - started < LEASE_S
    assert "could not be written for 2 s" in holder.communicate()[1]


def test_a_run_without_its_heartbeat_stops(holder):
    os.kill(heartbeat_of(holder), signal.SIGKILL)
    assert holder.wait(10) == 75
    assert ".lease" in holder.communicate()[1]
