"""Looks for a TPU by its name and prints how many devices or hosts it has. Started by tpu_probe, as a process."""

import socket
import sys

import tensorflow as tf

from trainer.distributed.cluster_config import split_address
from trainer.distributed.tpu_probe import CONNECT_TIMEOUT_S, COUNT_PREFIX


def count_devices(name: str) -> int:
    """This host's TPU devices for `local`, else the TPU's hosts. Raises OSError if one of them does not answer."""
    if name == "local":
        return len(tf.config.list_physical_devices("TPU"))
    cluster = tf.distribute.cluster_resolver.TPUClusterResolver(name).cluster_spec()
    addresses = [address for job in cluster.jobs for address in cluster.job_tasks(job)]
    for address in addresses:
        try:
            socket.create_connection(split_address(address), timeout=CONNECT_TIMEOUT_S).close()
        except OSError as error:
            raise OSError(f"{address}: {error}") from None
    return len(addresses)


if __name__ == "__main__":
    print(f"{COUNT_PREFIX}{count_devices(sys.argv[1])}")
