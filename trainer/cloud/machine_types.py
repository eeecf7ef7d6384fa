"""What --machine and its companions name: a machine type of Vertex AI, with its accelerators.

Only what a job needs to be built, and what could not run, is known here. The service refuses the rest: a type or an
accelerator that does not exist, or that the region does not have. As of autumn 2026:
  machine types, accelerators, TPU topologies  https://cloud.google.com/vertex-ai/docs/training/configure-compute
  TensorFlow on TPUs                           https://cloud.google.com/vertex-ai/docs/training/training-with-tpu-vm
"""

import dataclasses
from collections.abc import Mapping

from trainer.errors import Problem, advise_nearest

# The GPUs that are part of a machine type: which, and how many. A job has to name them too.
INCLUDED_GPUS = {
    **{f"g2-standard-{cores}": ("NVIDIA_L4", 1) for cores in (4, 8, 12, 16, 32)},
    **{f"g2-standard-{24 * gpus}": ("NVIDIA_L4", 2 * gpus) for gpus in (1, 2, 4)},
    **{f"a2-highgpu-{gpus}g": ("NVIDIA_TESLA_A100", gpus) for gpus in (1, 2, 4, 8)},
    "a2-megagpu-16g": ("NVIDIA_TESLA_A100", 16),
    **{f"a2-ultragpu-{gpus}g": ("NVIDIA_A100_80GB", gpus) for gpus in (1, 2, 4, 8)},
    **{f"a3-highgpu-{gpus}g": ("NVIDIA_H100_80GB", gpus) for gpus in (1, 2, 4, 8)},
    "a3-megagpu-8g": ("NVIDIA_H100_MEGA_80GB", 8),
    "a3-ultragpu-8g": ("NVIDIA_H200_141GB", 8),
}
# The GPUs that an n1 machine can have: the last part of each is its short name.
ATTACHABLE_GPUS = {
    name.rpartition("_")[2]: name for name in ("NVIDIA_TESLA_P4", "NVIDIA_TESLA_T4", "NVIDIA_TESLA_V100")
}
CLOUD_TPU = "cloud-tpu"  # TPU v2 and v3: the accelerator says which.
CLOUD_TPU_CORES = 8  # One host has so many.
# TPU v5e: the topology that is one host's.
ONE_HOST_TOPOLOGIES = {"ct5lp-hightpu-1t": "1x1", "ct5lp-hightpu-4t": "2x2", "ct5lp-hightpu-8t": "2x4"}
# TPU v6e and later: Vertex AI has no TensorFlow for them.
WITHOUT_TENSORFLOW = ("ct6e", "tpu7x", "tpu_v6e", "tpu_v7", "tpu-v6e", "v6e")
# GPUs of the Blackwell generation (compute capability 10 or 12), by the start of their machine types and of their names
# without NVIDIA_. distributed/gpu_support.py says why TensorFlow 2.20 does not run on them.
BLACKWELL_MACHINES = ("a4-", "a4x-", "g4-")
BLACKWELL_GPUS = ("B200", "B300", "GB200", "GB300", "RTX_PRO_6000")
WITHOUT_KERNELS = (
    "TensorFlow 2.20 is built for CUDA 12.5 and has no kernels for Blackwell GPUs (compute capability 10 and 12). "
    "Use an L4 (--machine=gpu), an A100 (a2-highgpu-1g) or an H100 (a3-highgpu-1g)."
)


@dataclasses.dataclass(frozen=True)
class Machine:
    """One machine of a job, as Vertex AI's MachineSpec describes it."""

    machine_type: str
    accelerator_type: str = ""  # A name of Vertex AI's AcceleratorType. The machine type implies a TPU v5e.
    accelerator_count: int = 0  # GPUs, or the cores of a TPU v2 or v3.
    tpu_topology: str = ""  # Of a TPU v5e, such as 2x2.

    @property
    def has_tpu(self) -> bool:
        return self.machine_type == CLOUD_TPU or self.machine_type in ONE_HOST_TOPOLOGIES

    @property
    def devices(self) -> int:
        """The number of replicas that it trains: its GPUs, its TPU cores (v5e has one in a chip), or the CPU."""
        if self.machine_type in ONE_HOST_TOPOLOGIES:
            return int(self.machine_type.rpartition("-")[2].removesuffix("t"))
        return self.accelerator_count or 1


MachineNames = Mapping[str, tuple[Machine, int]]

# Short names for --machine: the machine, and how many of it.
SHORT_NAMES: MachineNames = {
    "cpu": (Machine("n1-standard-8"), 1),
    "gpu": (Machine("g2-standard-8"), 1),
    "gpus": (Machine("g2-standard-24"), 1),
    "workers": (Machine("g2-standard-8"), 2),
    "tpu_v2": (Machine(CLOUD_TPU, "TPU_V2", CLOUD_TPU_CORES), 1),
    "tpu_v3": (Machine(CLOUD_TPU, "TPU_V3", CLOUD_TPU_CORES), 1),
    "tpu_v5e": (Machine("ct5lp-hightpu-4t"), 1),
}


def resolve_machine(
    name: str,
    accelerator: str = "",
    tpu_topology: str = "",
    replicas: int | None = None,
    short_names: MachineNames = SHORT_NAMES,
) -> tuple[Machine, int]:
    """(the machine that the flags name, with what its type implies; how many of it).

    `accelerator`: NVIDIA_TESLA_T4, NVIDIA_TESLA_T4:2 or T4:2. `find_machine_problems` checks the result.
    """
    machine, usual_replicas = short_names.get(name, (Machine(name), 1))
    if accelerator:
        accelerator_type, _, count = accelerator.upper().replace("-", "_").partition(":")
        usual_count = CLOUD_TPU_CORES if machine.has_tpu else 1
        machine = dataclasses.replace(
            machine,
            accelerator_type=ATTACHABLE_GPUS.get(accelerator_type, accelerator_type),
            accelerator_count=(int(count) if count.isdecimal() else 0) if count else usual_count,
        )
    elif machine.machine_type in INCLUDED_GPUS:
        gpu_type, gpu_count = INCLUDED_GPUS[machine.machine_type]
        machine = dataclasses.replace(machine, accelerator_type=gpu_type, accelerator_count=gpu_count)
    topology = tpu_topology or ONE_HOST_TOPOLOGIES.get(machine.machine_type, "")
    return dataclasses.replace(machine, tpu_topology=topology), usual_replicas if replicas is None else replicas


def choose_strategy(machine: Machine, replicas: int) -> str:
    """trainer.task's --strategy for `replicas` such machines. It is one that fails where the accelerator is missing."""
    if machine.has_tpu:
        return "tpu"
    if replicas > 1:
        return "multi_worker"
    return "mirrored" if machine.accelerator_count else "cpu"


def find_machine_problems(machine: Machine, replicas: int, short_names: MachineNames = SHORT_NAMES) -> list[Problem]:
    """Why the trainer could not run on so many such machines."""
    problems = []
    machine_type, topology = machine.machine_type, machine.tpu_topology
    accelerator = f"{machine.accelerator_type}:{machine.accelerator_count}" if machine.accelerator_type else "none"
    if machine_type.startswith(WITHOUT_TENSORFLOW):
        advice = "From TPU v6e on, Vertex AI has no TensorFlow. Use tpu_v5e, tpu_v3 or tpu_v2, or a GPU."
        problems.append(Problem("--machine", "be one that runs TensorFlow", machine_type, advice))
    elif machine_type.startswith(BLACKWELL_MACHINES):
        problems.append(Problem("--machine", "have GPUs that TensorFlow runs on", machine_type, WITHOUT_KERNELS))
    elif "-" not in machine_type:
        required = f"be a machine type of Vertex AI, such as n1-standard-8, or one of {', '.join(short_names)}"
        problems.append(Problem("--machine", required, machine_type, advise_nearest(machine_type, short_names)))
    if replicas < 1:
        problems.append(Problem("--replicas", "be at least 1", str(replicas)))
    if machine.has_tpu and replicas > 1:
        problems.append(Problem("--replicas", "be 1 with a TPU", str(replicas)))
    # On each host of a larger slice the service starts the container by itself. A coordinator, which trains on other
    # hosts, needs a TensorFlow server on each of them instead, as Cloud TPU's own machines have it.
    larger = "Vertex AI has no TensorFlow servers on the hosts of a larger slice: docs/tpu.md says where one runs."
    one_host = [f"{name}:{CLOUD_TPU_CORES}" for name in ("TPU_V2", "TPU_V3")]
    if machine_type == CLOUD_TPU and accelerator not in one_host:
        required = f"be {' or '.join(one_host)}, one host's, with {CLOUD_TPU}"
        problems.append(Problem("--accelerator", required, accelerator, larger))
    elif machine_type in ONE_HOST_TOPOLOGIES and machine.accelerator_type:
        problems.append(Problem("--accelerator", f"be left out with {machine_type}", accelerator))
    elif machine.accelerator_type.removeprefix("NVIDIA_").startswith(BLACKWELL_GPUS):
        problems.append(Problem("--accelerator", "be GPUs that TensorFlow runs on", accelerator, WITHOUT_KERNELS))
    elif machine.accelerator_type and machine.accelerator_count < 1:
        problems.append(Problem("--accelerator", "have a count of at least 1, NAME:COUNT", accelerator))
    if topology and topology != ONE_HOST_TOPOLOGIES.get(machine_type):
        pairs = ", ".join(f"{value} with {name}" for name, value in ONE_HOST_TOPOLOGIES.items())
        required = f"be left out, or be one host's of a TPU v5e ({pairs})"
        problems.append(Problem("--tpu_topology", required, f"{topology} with {machine_type}", larger))
    return problems
