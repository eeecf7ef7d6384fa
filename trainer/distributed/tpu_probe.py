"""Whether there is a TPU, tested in another process: where it is missing, TensorFlow may hang or abort its process."""

import functools
import importlib.util
import os
import subprocess
import sys

from trainer import child_process
from trainer.errors import Problem

PROBE_MODULE = "trainer.distributed.tpu_probe_process"
# What the process prints last, before the number of devices.
COUNT_PREFIX = "TPU devices: "
# For the complete process, of which importing TensorFlow takes 3 to 10 s.
PROBE_TIMEOUT_S = 25
CONNECT_TIMEOUT_S = 10

# A TPU of other hosts is theirs to load, also where this process runs on one of them.
REMOTE_TPU_VARIABLES = {"TPU_LOAD_LIBRARY": "0"}
# What a v5e host needs before TensorFlow is imported; older generations ignore it.
# https://cloud.google.com/vertex-ai/docs/training/training-with-tpu-vm
TPU_VARIABLES = {
    "PJRT_DEVICE": "TPU",
    "NEXT_PLUGGABLE_DEVICE_USE_C_API": "true",
}


def requested_tpu(flag: str | None) -> str | None:
    """The TPU that --tpu, or else TPU_NAME, names: `local`, the name of one, or its hosts' grpc:// addresses."""
    return flag or os.environ.get("TPU_NAME") or None


def set_tpu_environment(name: str) -> None:
    """Set the variables of a TPU that are not set yet. Call it before TensorFlow is imported."""
    os.environ.setdefault("TPU_NAME", name)
    local = name == "local"
    for variable, value in (TPU_VARIABLES if local else REMOTE_TPU_VARIABLES).items():
        os.environ.setdefault(variable, value)
    libtpu = importlib.util.find_spec("libtpu") if local else None
    if libtpu and libtpu.origin:
        library = os.path.join(os.path.dirname(libtpu.origin), "libtpu.so")
        os.environ.setdefault("TF_PLUGGABLE_DEVICE_LIBRARY_PATH", library)


def find_import_problem(name: str) -> Problem | None:
    """What is wrong if TensorFlow was imported, by an earlier call in this process, without the variables of a TPU."""
    variables = TPU_VARIABLES if name == "local" else REMOTE_TPU_VARIABLES
    if "tensorflow" not in sys.modules or variables.keys() <= os.environ.keys():
        return None
    return Problem("--tpu", "be named before TensorFlow is imported", name, "Run it in a new process.")


@functools.cache
def find_tpu_problem(name: str) -> str | None:
    """Why no TPU of this name can be used, in one line; None if one can. Takes PROBE_TIMEOUT_S at most."""
    try:
        done = subprocess.run(
            child_process.command(PROBE_MODULE, name),
            # Without a TPU, libtpu may abort the process. Its own last line is the reason, not a list of modules.
            env=child_process.environment(PYTHONFAULTHANDLER=""),
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {PROBE_TIMEOUT_S} s"
    # Without a count the process has not come to its end, whatever its exit code: libtpu may end it with 0.
    count = done.stdout.strip().rpartition("\n")[2].removeprefix(COUNT_PREFIX)
    if done.returncode == 0 and count.isdecimal() and int(count):
        return None
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return lines[-1][:200] if done.returncode and lines else "TensorFlow lists none"
