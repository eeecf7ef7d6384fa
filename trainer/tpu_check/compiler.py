"""Compile HLO with Google's TPU compiler, without a TPU: FLOPs, bytes, memory and all-reduces, or that it does not fit.

JAX installs the compiler as part of libtpu, which can compile for TPU hosts that are not attached. This module imports
no TensorFlow, which cannot be loaded into the same process. Run as a program, it answers requests (child_requests).
"""

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

from trainer.errors import Problem, UserError
from trainer.tpu_check import child_requests

# Without these, libtpu waits for the metadata server of a TPU VM.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "JAX_PLATFORMS": "cpu",
}

# -1 is the least effort to make the program fast, 0 what a TPU's user gets. A BERT-base step of 32 x 128 for v5e-4
# compiles in 69 s instead of 431 s, and needs 2.52 GB of memory instead of 2.76; FLOPs and all-reduces are the same.
EXEC_TIME_OPTIMIZATION_EFFORT = -1.0


@dataclasses.dataclass(frozen=True)
class Topology:
    """The devices of one or several TPU hosts. Each device runs one replica."""

    name: str  # As libtpu writes it.
    replicas: int
    hbm_gib: float  # A program may fill this much of a device's HBM. It is the compiler's own limit.
    chip_config: str = "default"  # "megacore" makes a chip's two cores one device with the memory of both.
    hosts: int = 1

    @property
    def hbm_bytes(self) -> int:
        return int(self.hbm_gib * 2**30)


TOPOLOGIES = {
    "v2-8": Topology("v2:2x2", 8, 7.48),
    "v3-8": Topology("v3:2x2", 8, 15.48),
    "v4-8": Topology("v4:2x2x1", 4, 30.75, "megacore"),
    "v5e-4": Topology("v5e:2x2", 4, 15.75),
    "v5e-8": Topology("v5e:2x4", 8, 15.75),
    "v5p-8": Topology("v5p:2x2x1", 4, 95.74),
    "v3-32": Topology("v3:4x4", 32, 15.48, hosts=4),
    "v4-32": Topology("v4:2x2x4", 16, 30.75, "megacore", hosts=4),
    "v5e-16": Topology("v5e:4x4", 16, 15.75, hosts=4),
    "v5e-32": Topology("v5e:4x8", 32, 15.75, hosts=8),
}


@dataclasses.dataclass(frozen=True)
class CompiledProgram:
    """What one replica's program needs. All figures are 0 if the compiler found it too large."""

    fits: bool
    memory_bytes: int = 0  # Inputs, outputs that do not reuse an input's memory, temporaries and code.
    flops: float = 0.0
    bytes_accessed: float = 0.0  # Read and written, as the compiler counts them.
    all_reduces: int = 0


def compile_hlo(hlo: bytes, topology: Topology) -> CompiledProgram:
    """Compile an HloModuleProto for every replica of a topology.

    Raises UserError if the compiler rejects it for another reason than its size.
    """
    from jaxlib import _jax, xla_client

    try:
        executable = compile_stablehlo(_jax.mlir.hlo_to_stablehlo(hlo), topology, topology.replicas)
    except xla_client.XlaRuntimeError as error:
        if error.error_code_string == "RESOURCE_EXHAUSTED":
            return CompiledProgram(fits=False)
        raise UserError(Problem("A TPU program", "compile", str(error)[:600])) from None
    stats = executable.get_compiled_memory_stats()
    memory = (
        stats.argument_size_in_bytes
        + stats.output_size_in_bytes
        - stats.alias_size_in_bytes
        + stats.temp_size_in_bytes
        + stats.generated_code_size_in_bytes
    )
    costs = executable.cost_analysis()
    all_reduces = re.findall(r" all-reduce(?:-start)?\(", executable.hlo_modules()[0].to_string())
    return CompiledProgram(
        memory <= topology.hbm_bytes, memory, costs["flops"], costs["bytes accessed"], len(all_reduces)
    )


def compile_stablehlo(module: str | bytes, topology: Topology, replicas: int) -> Any:
    """Return the executable of a StableHLO module. Raises XlaRuntimeError, RESOURCE_EXHAUSTED if it does not fit."""
    import numpy as np
    from jax.experimental import topologies
    from jax.interpreters import mlir
    from jaxlib import xla_client
    from jaxlib.mlir import ir

    description = topologies.get_topology_desc(topology.name, "tpu", chip_config_name=topology.chip_config)
    devices = list(description.devices)
    assert len(devices) == topology.replicas
    # Of one host's: libtpu takes the 8 chips of a v5e host for two hosts, which changes nothing for a replica.
    assert topology.hosts == 1 or len({device.process_index for device in devices}) == topology.hosts
    with mlir.make_ir_context():
        parsed = ir.Module.parse(module)
    options = xla_client.CompileOptions()
    options.num_replicas, options.num_partitions = replicas, 1
    options.device_assignment = xla_client.DeviceAssignment.create(np.arange(replicas).reshape(replicas, 1))
    options.executable_build_options.exec_time_optimization_effort = EXEC_TIME_OPTIMIZATION_EFFORT
    return devices[0].client.compile(parsed, xla_client.DeviceList(tuple(devices[:replicas])), options)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a CompiledProgram for {"hlo": path of an HloModuleProto, "topology": name}."""
    program = compile_hlo(Path(request["hlo"]).read_bytes(), TOPOLOGIES[request["topology"]])
    return dataclasses.asdict(program)


if __name__ == "__main__":
    os.environ.update(ENVIRONMENT)
    child_requests.answer_requests(answer)
