"""A lease on a folder in a bucket: one process at a time holds it, by a lock object that it renews.

Whoever creates the lock object (the service lets one writer succeed, by generation) holds the folder. It is renewed
every twelfth of a lease, which gives it another generation. Another process that wants the folder polls the object by
its own clock, since the clocks of two machines cannot be compared: a new generation means that the holder is alive;
none during a complete lease, that it is dead and can be replaced.

A process of our own renews it (`heartbeat`). It notices the end of its parent, whatever the cause, and releases the
folder at once: a lease has to run out only when a machine is gone. A holder that could not renew for two thirds of a
lease is killed before another one replaces it.
"""

import contextlib
import json
import logging
import os
import select
import sys
import time
import uuid
from collections.abc import Iterator

from trainer.storage import heartbeat, local, lock_objects, retries
from trainer.storage.lock_objects import LockLost, describe_holder

_LOG = logging.getLogger(__name__)


def lease_seconds() -> float:
    """The length of a lease: longer than an outage that a run survives."""
    return 2 * retries.retry_seconds()


@contextlib.contextmanager
def lock_folder(folder: str) -> Iterator[None]:
    """Hold a folder for this process.

    Raises UserError, naming the holder, if another process is alive and has it, after a twelfth of a lease at most.
    Waits for a lease if the holder may be dead.
    """
    path = f"{folder.rstrip('/')}/{local.LOCK_FILE}"
    holder = {**local.describe_process(), "token": uuid.uuid4().hex}
    try:
        # Renewed at once: a bucket that lets it be written but not replaced is refused before anything is computed.
        generation = lock_objects.renew_lock(path, holder, _acquire(folder, path, holder))
    except LockLost as error:
        raise local.locked_error(folder, str(error)) from None
    with heartbeat.running("trainer.storage.lease", path, str(generation), json.dumps(holder)):
        yield


def _acquire(folder: str, path: str, holder: dict[str, str]) -> int:
    """The generation of the lock object with which this process holds the folder."""
    first_generation, first_seen = None, time.monotonic()
    while True:
        lock = lock_objects.read_lock(path)
        if lock is None:
            written = lock_objects.write_lock(path, holder, 0)
            if written is not None:
                return written
            continue  # Another process was faster, or it was this one and the reply was lost: read it again.
        generation, other = lock
        if other.get("token") == holder["token"]:
            return generation
        if first_generation is None:
            first_generation, first_seen = generation, time.monotonic()
            _LOG.info("%s is held by %s. Waiting to see whether it is alive.", folder, describe_holder(other))
        elif generation != first_generation:
            raise local.locked_error(folder, describe_holder(other))
        elif time.monotonic() - first_seen >= lease_seconds():
            _LOG.warning(
                "%s has not renewed its lease for %.0f s: replacing it.",
                describe_holder(other),
                lease_seconds(),
            )
            written = lock_objects.write_lock(path, holder, generation)
            if written is not None:
                return written
            first_generation = None
        time.sleep(lease_seconds() / 60)


def run_heartbeat(path: str, generation: int, holder: dict[str, str], parent: int) -> None:
    """Renew the lock object until standard input ends, then remove it. Kills `parent` once the lease is lost."""
    # When the last request that succeeded was sent: the object's generation is no older.
    renewed = time.monotonic()
    # A request may not be retried for longer than the interval: it might end only when the lease has run out.
    delay = interval = lease_seconds() / 12
    while not select.select([sys.stdin], [], [], delay)[0]:
        sent, delay = time.monotonic(), interval
        try:
            generation, renewed = lock_objects.renew_lock(path, holder, generation, interval), sent
        except LockLost as error:
            heartbeat.kill_run(parent, f"{path} is held by {error}.")
            return
        except OSError as error:
            if time.monotonic() - renewed > lease_seconds() * 2 / 3:
                heartbeat.kill_run(parent, f"{path} could not be written for {lease_seconds() * 2 / 3:.0f} s: {error}")
                return
            delay = 1.0
    with contextlib.suppress(OSError):
        lock_objects.remove_lock(path, generation)


if __name__ == "__main__":
    run_heartbeat(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]), os.getppid())
