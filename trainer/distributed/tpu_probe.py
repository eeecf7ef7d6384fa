"""The TPU, looked for in a process of its own: where it is missing, TensorFlow may hang, or abort the process."""

import functools
import importlib.util
import os
import subprocess
import sys

# Seconds for the look. Importing TensorFlow takes 3 to 10 of them.
PROBE_TIMEOUT_S = 25

# What a v5e host needs before TensorFlow is imported; older generations ignore it.
# https://cloud.google.com/vertex-ai/docs/training/training-with-tpu-vm
_SETTINGS = {
    "PJRT_DEVICE": "TPU",
    "NEXT_PLUGGABLE_DEVICE_USE_C_API": "true",
}

_LOOK = """
import socket
import sys
import tensorflow as tf
name = sys.argv[1]
if name == "local":
    found = len(tf.config.list_physical_devices("TPU"))
else:
    spec = tf.distribute.cluster_resolver.TPUClusterResolver(name).cluster_spec()
    found = [address for job in spec.jobs for address in spec.job_tasks(job)]
    for address in found:
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), timeout=10).close()
print("found", found or 0)
"""


def requested_tpu(flag: str | None) -> str | None:
    """The TPU that --tpu, or else the environment, names: `local`, or the name or grpc:// address of one."""
    return flag or os.environ.get("TPU_NAME") or None


def set_tpu_environment(name: str) -> None:
    """Put a TPU's settings into the environment. Call it before TensorFlow is imported."""
    os.environ.setdefault("TPU_NAME", name)
    for key, value in _SETTINGS.items():
        os.environ.setdefault(key, value)
    libtpu = importlib.util.find_spec("libtpu")
    if libtpu and libtpu.origin:
        library = os.path.join(os.path.dirname(libtpu.origin), "libtpu.so")
        os.environ.setdefault("TF_PLUGGABLE_DEVICE_LIBRARY_PATH", library)


@functools.cache
def find_tpu_problem(name: str) -> str | None:
    """Why there is no TPU of this name; None if there is one. Takes LOOK seconds at most."""
    try:
        look = subprocess.run(
            [sys.executable, "-c", _LOOK, name], capture_output=True, text=True, timeout=PROBE_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {PROBE_TIMEOUT_S} s"
    said = look.stdout.strip().splitlines()[-1:]
    if look.returncode == 0 and said and said[0] != "found 0":
        return None
    errors = [line for line in look.stderr.splitlines() if line.strip()]
    return errors[-1][:200] if look.returncode and errors else "TensorFlow lists none"
