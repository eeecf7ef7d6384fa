"""A folder in a bucket, held by one process at a time: by an object in it, `.lock`, that its holder keeps alive.

Whoever makes the object (the service lets one writer succeed, by generation) holds the folder. It is written anew every
twelfth of a lease, which gives it another generation; who finds it watches by its own clock, no two machines' clocks
being compared: a new generation is a live holder, none for a whole lease a dead one, whose place is taken.

A process of its own keeps it alive, since TensorFlow may hold Python's lock for as long as it tries a request again.
It sees its parent's end, however it came, and gives the folder back at once: a lease is waited for only when a machine
is gone. A holder that could not write the object for two thirds of a lease is killed before another takes its place.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from trainer.errors import EXIT_STOPPED
from trainer.storage import gcs, retries

LOCK_FILE = ".lock"


def lease_seconds() -> float:
    """Of a lease: longer than the outages that a run outlives."""
    return 2 * retries.retry_seconds()


def _describe_holder(holder: dict[str, str]) -> str:
    return json.dumps({key: value for key, value in holder.items() if key != "token"})


@contextlib.contextmanager
def hold_lease(folder: str) -> Iterator[None]:
    """Hold a folder for this process alone.

    Raises ValueError, naming the holder, if another process is alive and has it, after a twelfth of a lease at most;
    waits a lease for one that may be dead.
    """
    path = f"{folder.rstrip('/')}/{LOCK_FILE}"
    me = {
        "host": socket.gethostname(),
        "pid": str(os.getpid()),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "token": uuid.uuid4().hex,
    }
    generation = _acquire(folder, path, me)
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    command = [sys.executable, "-m", "trainer.storage.lease", path, str(generation), json.dumps(me)]
    # A session of its own, so that Ctrl-C in a terminal reaches the run alone.
    keeper = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, start_new_session=True)
    assert keeper.stdin
    over = threading.Event()

    def watch() -> None:
        keeper.wait()
        if not over.is_set():
            print(f"stopped: the process that holds {path} is gone. Run the same command again.", file=sys.stderr)
            sys.stderr.flush()
            os._exit(EXIT_STOPPED)  # at once: nothing may be written that another could be writing

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()
        keeper.stdin.close()
        keeper.wait()


def _acquire(folder: str, path: str, me: dict[str, str]) -> int:
    """The generation of the object that says that the folder is ours."""
    watched, since = None, time.monotonic()
    while True:
        there = gcs.read_lock_object(path)
        if there is None:
            written = gcs.write_lock_object(path, me, 0)
            if written is not None:
                return written
            continue  # another was faster, or it was us and the reply was lost: look again
        generation, holder = there
        if holder.get("token") == me["token"]:
            return generation
        if watched is None:
            watched, since = generation, time.monotonic()
            print(
                f"{folder} is held by {_describe_holder(holder)}: watching whether it is alive.",
                file=sys.stderr,
                flush=True,
            )
        elif generation != watched:
            raise ValueError(
                f"--model_dir must be used by one run at a time. Received: {folder}, held by "
                f"{_describe_holder(holder)}. Wait for it to end, or choose another --model_dir."
            )
        elif time.monotonic() - since >= lease_seconds():
            print(
                f"warning: {_describe_holder(holder)} has been silent for {lease_seconds():.0f} s: taking over.",
                file=sys.stderr,
            )
            written = gcs.write_lock_object(path, me, generation)
            if written is not None:
                return written
            watched = None
        time.sleep(lease_seconds() / 60)


def run_heartbeat(path: str, generation: int, me: dict[str, Any], parent: int) -> None:
    """Write the object anew until standard input ends, then remove it. Kills `parent` if the folder is not ours."""
    # From the beginning of the last request that was answered well: the object's generation is no older.
    known = time.monotonic()
    # As short as the beat: a request that were tried for longer might end only when the lease is over.
    wait = beat = lease_seconds() / 12
    while not select.select([sys.stdin], [], [], wait)[0]:
        began, wait = time.monotonic(), beat
        try:
            written = gcs.write_lock_object(path, me, generation, beat)
            there = None if written is not None else gcs.read_lock_object(path, beat)
        except OSError as error:
            if time.monotonic() - known > lease_seconds() * 2 / 3:
                _kill_parent(parent, f"{path} could not be written for {lease_seconds() * 2 / 3:.0f} s: {error}")
                return
            wait = 1.0
            continue
        if written is None:
            if there is None or there[1].get("token") != me["token"]:
                _kill_parent(
                    parent, f"{path} was taken by {_describe_holder(there[1]) if there else 'nobody: it was removed'}."
                )
                return
            written = there[0]  # ours, and the reply was lost
        generation, known = written, began
    with contextlib.suppress(OSError):
        gcs.remove_lock_object(path, generation)


def _kill_parent(parent: int, why: str) -> None:
    print(
        f"error: the run no longer holds its --model_dir and ends, before it could write beside another: {why} "
        "Run the same command again to go on from the newest checkpoint.",
        file=sys.stderr,
        flush=True,
    )
    if os.getppid() == parent:
        os.kill(parent, signal.SIGKILL)


if __name__ == "__main__":
    run_heartbeat(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]), os.getppid())
