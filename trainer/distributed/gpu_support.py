"""Whether TensorFlow has kernels for the GPUs of this machine.

The wheel of TensorFlow 2.20 is built with CUDA 12.5 for sm_60, sm_70, sm_80, sm_89 and compute_90
(tf.sysconfig.get_build_info). A GPU of the Blackwell generation, compute capability 10 or 12, is listed as a device.
Operations on it fail with CUDA_ERROR_INVALID_PTX: https://github.com/tensorflow/tensorflow/issues/101746 (RTX 5080),
https://github.com/tensorflow/tensorflow/issues/103531 (RTX PRO). XLA writes PTX 8.5, which has no such target:
https://github.com/tensorflow/tensorflow/issues/111958
"""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from trainer.errors import Problem

# The first compute capability that is too new.
FIRST_WITHOUT_KERNELS = (10, 0)


def find_gpu_problems(strategy: str, tpu: str | None) -> list[Problem]:
    """What is wrong with the GPUs that a strategy of this name would use. Starts no device.

    `tpu`: the TPU that --tpu or TPU_NAME names, which --strategy=auto prefers.
    """
    if strategy not in ("auto", "one_device", "mirrored", "multi_worker") or (strategy == "auto" and tpu):
        return []
    gpus = tf.config.list_physical_devices("GPU")
    return find_gpus_without_kernels(strategy, [tf.config.experimental.get_device_details(gpu) for gpu in gpus])


def find_gpus_without_kernels(strategy: str, gpus: Sequence[Mapping[str, Any]]) -> list[Problem]:
    """A problem if TensorFlow cannot compute on one of the GPUs, whose details are those of get_device_details.

    All that are visible are started, whichever the strategy uses. One without a capability is let through.
    """
    too_new = [
        f"{gpu.get('device_name', 'a GPU')} (compute capability {'.'.join(map(str, capability))})"
        for gpu in gpus
        if (capability := gpu.get("compute_capability", (0, 0))) >= FIRST_WITHOUT_KERNELS
    ]
    if not too_new:
        return []
    required = "run on GPUs of a compute capability below 10: TensorFlow 2.20 has no kernels for newer ones"
    advice = (
        "Use --strategy=cpu, or another GPU, such as an L4, an A100 or an H100. If there are others, name them in "
        "CUDA_VISIBLE_DEVICES."
    )
    return [Problem(f"--strategy={strategy}", required, ", ".join(too_new), advice)]
