"""What Vertex AI offers to train on, as data: machine types, accelerators, TPU topologies, regions.

From the pages below as they stood in autumn 2026 (Vertex AI's new name in them is Gemini Enterprise Agent Platform):
  types, GPUs a machine takes, TPU topologies  https://cloud.google.com/vertex-ai/docs/training/configure-compute
  accelerators a region has for training       https://cloud.google.com/vertex-ai/docs/general/locations#accelerators
  TensorFlow on TPUs                           https://cloud.google.com/vertex-ai/docs/training/training-with-tpu-vm
Left out: the P100, whose support ended on 2026-09-15, and a4x, whose processors are Arm: the images are for x86.
"""

import dataclasses

_CPU = {
    "c2-standard": (4, 8, 16, 30, 60),
    "e2-standard": (4, 8, 16, 32),
    "e2-highmem": (2, 4, 8, 16),
    "e2-highcpu": (16, 32),
    "m1-ultramem": (40, 80, 160),
    "m1-megamem": (96,),
    "n1-standard": (4, 8, 16, 32, 64, 96),
    "n1-highmem": (2, 4, 8, 16, 32, 64, 96),
    "n1-highcpu": (16, 32, 64, 96),
    "n2-standard": (4, 8, 16, 32, 48, 64, 80),
    "n2-highmem": (2, 4, 8, 16, 32, 48, 64, 80),
    "n2-highcpu": (16, 32, 48, 64, 80),
    "n4-standard": (2, 4, 8, 16, 32, 48, 64, 80),
    "n4-highmem": (2, 4, 8, 16, 32, 48, 64, 80),
    "n4-highcpu": (2, 4, 8, 16, 32, 48, 64, 80),
}
CPU_TYPES = tuple(f"{series}-{size}" for series, sizes in _CPU.items() for size in sizes)

# Machine types that come with GPUs: which, and how many.
GPU_TYPES = {
    **{f"g2-standard-{size}": ("NVIDIA_L4", 1) for size in (4, 8, 12, 16, 32)},
    "g2-standard-24": ("NVIDIA_L4", 2),
    "g2-standard-48": ("NVIDIA_L4", 4),
    "g2-standard-96": ("NVIDIA_L4", 8),
    **{f"g4-standard-{48 * gpus}": ("NVIDIA_RTX_PRO_6000", gpus) for gpus in (1, 2, 4, 8)},
    **{f"a2-highgpu-{gpus}g": ("NVIDIA_TESLA_A100", gpus) for gpus in (1, 2, 4, 8)},
    "a2-megagpu-16g": ("NVIDIA_TESLA_A100", 16),
    **{f"a2-ultragpu-{gpus}g": ("NVIDIA_A100_80GB", gpus) for gpus in (1, 2, 4, 8)},
    **{f"a3-highgpu-{gpus}g": ("NVIDIA_H100_80GB", gpus) for gpus in (1, 2, 4, 8)},
    "a3-megagpu-8g": ("NVIDIA_H100_MEGA_80GB", 8),
    "a3-ultragpu-8g": ("NVIDIA_H200_141GB", 8),
    "a4-highgpu-8g": ("NVIDIA_B200", 8),
}

# How many GPUs an n1 machine takes, by the most virtual CPUs that it may have.
_SMALL = {8: (1, 2, 4), 16: (1, 2, 4), 32: (2, 4), 96: (4,)}
ATTACHED = {
    "NVIDIA_TESLA_P4": _SMALL,
    "NVIDIA_TESLA_T4": _SMALL,
    "NVIDIA_TESLA_V100": {8: (1, 2, 4, 8), 16: (2, 4, 8), 32: (4, 8), 96: (8,)},
}

CLOUD_TPU = "cloud-tpu"  # v2 and v3: 8 cores a host, the accelerator said
TPU_CORES = 8
# v5e: the type says the chips of a host; topology -> hosts.
V5E = {
    "ct5lp-hightpu-1t": {"1x1": 1},
    "ct5lp-hightpu-4t": {"2x2": 1, "2x4": 2, "4x4": 4, "4x8": 8, "8x8": 16, "8x16": 32, "16x16": 64},
    "ct5lp-hightpu-8t": {"2x4": 1},
}
NO_TENSORFLOW = ("ct6e", "tpu7x", "tpu_v6e", "tpu_v7", "tpu-v6e", "v6e")  # v6e and what came after

ACCELERATORS = (*ATTACHED, *dict.fromkeys(name for name, _ in GPU_TYPES.values()), "TPU_V2", "TPU_V3")
TYPES = (*CPU_TYPES, *GPU_TYPES, *V5E, CLOUD_TPU)

# Region -> accelerators for training, by the ends of their names.
REGIONS = {
    "africa-south1": "",
    "asia-east1": "T4 V100 H100_MEGA_80GB TPU_V2",
    "asia-east2": "T4",
    "asia-northeast1": "H100_80GB H100_MEGA_80GB B200 T4",
    "asia-northeast2": "",
    "asia-northeast3": "A100 H100_80GB L4 T4",
    "asia-south1": "H100_80GB L4 T4 H200_141GB",
    "asia-south2": "H200_141GB RTX_PRO_6000",
    "asia-southeast1": "A100 A100_80GB B200 H100_80GB H100_MEGA_80GB L4 P4 T4 RTX_PRO_6000",
    "asia-southeast2": "T4",
    "australia-southeast1": "H100_MEGA_80GB P4 T4",
    "australia-southeast2": "",
    "europe-central2": "T4",
    "europe-north1": "H100_MEGA_80GB",
    "europe-southwest1": "",
    "europe-west1": "H100_80GB H100_MEGA_80GB H200_141GB T4",
    "europe-west2": "H100_80GB L4 T4",
    "europe-west3": "H100_80GB H100_MEGA_80GB T4",
    "europe-west4": "A100 A100_80GB H100_80GB H100_MEGA_80GB H200_141GB B200 L4 P4 T4 V100 RTX_PRO_6000 TPU_V2 TPU_V3",
    "europe-west6": "",
    "europe-west8": "",
    "europe-west9": "",
    "europe-west12": "",
    "me-central1": "",
    "me-central2": "L4",
    "me-west1": "A100",
    "northamerica-northeast1": "P4 T4",
    "northamerica-northeast2": "H100_80GB L4",
    "southamerica-east1": "T4",
    "southamerica-west1": "",
    "us-central1": "A100 A100_80GB B200 H100_80GB H100_MEGA_80GB H200_141GB L4 P4 T4 V100 RTX_PRO_6000 TPU_V2 TPU_V3 "
    "TPU_V5E",
    "us-east1": "A100 B200 L4 T4 V100 RTX_PRO_6000 TPU_V5E",
    "us-east4": "A100_80GB H100_80GB H100_MEGA_80GB H200_141GB B200 L4 P4 T4 RTX_PRO_6000",
    "us-east5": "A100_80GB H100_80GB H100_MEGA_80GB H200_141GB",
    "us-south1": "B200 H200_141GB",
    "us-west1": "H100_80GB H100_MEGA_80GB H200_141GB L4 T4 V100 TPU_V5E",
    "us-west2": "P4 T4 B200",
    "us-west3": "A100 B200",
    "us-west4": "A100 H100_80GB H100_MEGA_80GB T4 TPU_V5E",
}


@dataclasses.dataclass(frozen=True)
class Host:
    """One machine of a job."""

    type: str  # such as n1-standard-8
    accelerator: str = ""  # a name of Vertex's AcceleratorType; v5e's is said by the type alone
    count: int = 0  # of accelerators (cores, for a TPU v2 or v3)
    topology: str = ""  # of a TPU v5e, such as 2x2

    @property
    def tpu(self) -> bool:
        return self.type == CLOUD_TPU or self.type in V5E

    @property
    def devices(self) -> int:
        """Replicas that one machine trains: GPUs, or a TPU's cores (v5e: one a chip), or the CPU."""
        chips = int(self.type.rsplit("-", 1)[1].removesuffix("t")) if self.type in V5E else 0
        return self.count or chips or 1


# Short names for --machine: the machine, and how many.
SHORT = {
    "cpu": (Host("n1-standard-8"), 1),
    "gpu": (Host("g2-standard-8"), 1),
    "gpus": (Host("g2-standard-24"), 1),
    "workers": (Host("g2-standard-8"), 2),
    "tpu_v2": (Host(CLOUD_TPU, "TPU_V2", TPU_CORES), 1),
    "tpu_v3": (Host(CLOUD_TPU, "TPU_V3", TPU_CORES), 1),
    "tpu_v5e": (Host("ct5lp-hightpu-4t"), 1),
}
