"""A lease on a folder of a disk that several machines use, in addition to the kernel's lock.

flock alone is not enough there. An NFS client passes it to the server (since Linux 2.6.12), unless it is mounted with
`nolock` or `local_lock`; most FUSE and some CSI drivers keep it to themselves, so that two machines would both get it.
And a server of NFS 3 may keep the lock of a machine that is gone for ever. So the holder also writes a file, the lease,
and renews it. Another machine watches it by its own clock: a renewal means that the holder is alive; none in LEASE_S
that it is gone. Where one kernel sees the locks of both, as on one machine, the kernel's lock decides, at once.

As in `lease`, which does the same for buckets, a process of our own renews it (`heartbeat`). It has the kernel's lock
too, so that whoever gets that lock finds the lease already removed. It kills a run whose lease is lost, or could not be
renewed for two thirds of LEASE_S, before another machine may take the folder.
"""

import contextlib
import dataclasses
import json
import logging
import os
import select
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from trainer.storage import heartbeat

LEASE_FILE = ".lease"
LEASE_S, RENEW_S, POLL_S = 60.0, 5.0, 0.5
# For a heartbeat to notice that its run was killed; and for two machines that replace a lease at once to see the other.
GRACE_S, SETTLE_S = 3.0, 3.0

_LOG = logging.getLogger(__name__)

Lease = dict[str, Any]  # The holder's description; its token, mount and renewals; whether it has the kernel's lock.


@contextlib.contextmanager
def hold_lease(
    folder: str, holder: dict[str, str], mount: str, lock: Callable[[], bool | None], lock_file: int
) -> Iterator[str | None]:
    """Hold the lease on an existing folder. Yields None, or the description of the process that holds it instead.

    `mount` is shared_disk.mount_identity. `lock` tries to get the kernel's lock, on the open file `lock_file`, and
    returns whether this process has it, None where there are no locks. Waits for LEASE_S for a holder elsewhere.
    """
    path = os.path.join(folder, LEASE_FILE)
    token = uuid.uuid4().hex
    other = _acquire(path, {**holder, "token": token, "mount": mount, "renewals": 0}, lock)
    if other is not None:
        yield _describe(other)
        return
    arguments = (token, str(LEASE_S), str(RENEW_S))
    with heartbeat.running("trainer.storage.disk_lease", path, *arguments, pass_files=[lock_file]):
        yield None


def _describe(lease: Lease) -> str:
    described = {key: lease[key] for key in ("host", "pid", "since") if key in lease}
    return json.dumps(described) if described else ""


def _acquire(path: str, ours: Lease, lock: Callable[[], bool | None]) -> Lease | None:
    """Get the lease: None. Or the lease of another process that is alive, {} if it has not written one."""
    started = time.monotonic()
    seen, seen_at = None, started
    while True:
        locked, other = lock(), _read(path)
        ours = {**ours, "locked": locked is True}
        if seen is not None and other is not None and other != seen:
            return other  # It was renewed, or another process was faster.
        if other is None and locked is not False:
            if _create(path, ours):
                return None
        elif other is None or (locked is not None and other.get("locked") and other.get("mount") == ours["mount"]):
            if locked:  # The kernel would have let a holder that is alive keep it.
                _replace(path, ours)
                return None
            if time.monotonic() - started > GRACE_S:
                return other or {}
        elif seen is None:
            seen, seen_at = other, time.monotonic()
            _LOG.info("%s is held by %s. Waiting to see whether it is alive.", path, _describe(other))
        elif time.monotonic() - seen_at > LEASE_S:
            _LOG.warning("%s has not renewed its lease for %.0f s: replacing it.", _describe(other), LEASE_S)
            _replace(path, ours)
            time.sleep(SETTLE_S)
            if _is_ours(path, ours["token"]):
                return None
            seen = None
        time.sleep(POLL_S)


def _read(path: str) -> Lease | None:
    """None if there is no lease. What cannot be parsed is being written, and so differs from what is read next."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except FileNotFoundError:
        return None
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError):
        return {"text": text}


def _is_ours(path: str, token: str) -> bool:
    return (_read(path) or {}).get("token") == token


def _create(path: str, lease: Lease) -> bool:
    """Whether this process has made the file: of several machines, one does."""
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(_format(lease))
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return False
    return True


def _replace(path: str, lease: Lease) -> None:
    temporary = f"{path}.{lease['token']}"
    _create(temporary, lease)
    os.replace(temporary, path)


def _format(lease: Lease) -> str:
    return json.dumps({**lease, "renewals": f"{int(lease['renewals']):010}"})  # Always as long, to be written in place.


# --- The process that renews it ---------------------------------------------------------------------


@dataclasses.dataclass
class _Renewal:
    """What the thread that writes tells the one that watches it: on NFS, writing may take as long as an outage."""

    at: float  # When the last renewal that succeeded began.
    problem: str = ""  # Of the last one that failed.
    lost_to: Lease | None = None  # Another process's lease, {} if it was removed.


def _renew(path: str, token: str) -> Lease | None:
    """Renew the lease, in place: of one that another process has replaced, the old file is written. None if it is lost.

    Raises OSError if the disk cannot be reached.
    """
    try:
        with open(path, "r+", encoding="utf-8") as file:
            lease = dict(json.loads(file.read()))
            if lease.get("token") == token:
                file.seek(0)
                file.write(_format({**lease, "renewals": int(lease["renewals"]) + 1}))
                file.flush()
                os.fsync(file.fileno())
                return None
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError):
        return {"host": "of another program"}
    return lease


def _renew_until_lost(path: str, token: str, every_s: float, renewal: _Renewal) -> None:
    while renewal.lost_to is None:
        began = time.monotonic()
        try:
            renewal.lost_to = _renew(path, token)
            renewal.at = began
        except OSError as error:
            renewal.problem = str(error)
        time.sleep(every_s)


def run_heartbeat(path: str, token: str, lease_s: float, every_s: float, parent: int) -> None:
    """Renew the lease until standard input ends, then remove it. Kills `parent` once the lease is lost."""
    renewal = _Renewal(time.monotonic())
    threading.Thread(target=_renew_until_lost, args=(path, token, every_s, renewal), daemon=True).start()
    while not select.select([sys.stdin], [], [], min(1.0, every_s))[0]:
        if renewal.lost_to is not None:
            holder = _describe(renewal.lost_to) or "nobody: the file was removed"
            heartbeat.kill_run(parent, f"{path} is held by {holder}.")
            return
        if time.monotonic() - renewal.at > lease_s * 2 / 3:
            heartbeat.kill_run(parent, f"{path} could not be written for {lease_s * 2 / 3:.0f} s. {renewal.problem}")
            return
    with contextlib.suppress(OSError):
        if _is_ours(path, token):
            os.remove(path)


if __name__ == "__main__":
    run_heartbeat(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]), os.getppid())
