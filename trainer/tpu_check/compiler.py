"""HLO -> what Google's TPU compiler says of it: FLOPs, bytes, memory, all-reduces; or that it does not fit. No TPU.

libtpu, which JAX installs, holds the compiler, and compiles for a topology that is not there. Imports no
TensorFlow, beside which it cannot be loaded. Run as a program, it answers requests, one line of JSON each.
"""

import dataclasses
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

# libtpu would ask a TPU VM's metadata server, and wait for it, unless it is told not to and what it would answer.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "JAX_PLATFORMS": "cpu",
}

# The least effort on the program's speed. A BERT-base step, 32 x 128, v5e-4: 69 s against 431 with 0, as a TPU's user
# compiles; 2.52 GB of memory against 2.76; the same FLOPs and all-reduces.
EFFORT = -1.0

# A program that fits nowhere, of 11 TiB; and what the compiler says of it.
TOO_LARGE = """func.func @main(%x: tensor<1000000x1000000xf32>) -> tensor<1000000x1000000xf32> {
  %y = stablehlo.add %x, %x : tensor<1000000x1000000xf32>
  return %y : tensor<1000000x1000000xf32>
}"""
CAPACITY = re.compile(r"exceeds available HBM \(([\d.]+)G\)")


@dataclasses.dataclass(frozen=True)
class Topology:
    """The chips of one TPU host, as libtpu takes them."""

    name: str
    replicas: int  # programs that run side by side, one for each device
    chip: str = "default"  # what is a device: a core; or "megacore", a chip's two cores with the memory of both


TOPOLOGIES = {
    "v2-8": Topology("v2:2x2", 8),
    "v3-8": Topology("v3:2x2", 8),
    "v4-8": Topology("v4:2x2x1", 4, "megacore"),
    "v5e-4": Topology("v5e:2x2", 4),
    "v5e-8": Topology("v5e:2x4", 8),
    "v5p-8": Topology("v5p:2x2x1", 4),
}


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What one replica's program needs. Figures are 0 where it does not fit."""

    fits: bool
    capacity: int  # bytes of HBM that the compiler may fill
    memory: int = 0  # bytes that it fills: inputs, outputs (but those in an input's place), temporaries, code
    flops: float = 0.0
    accessed: float = 0.0  # bytes read and written, as the compiler counts them
    all_reduces: int = 0


def devices(topology: Topology) -> list[Any]:
    from jax.experimental import topologies

    description = topologies.get_topology_desc(topology.name, "tpu", chip_config_name=topology.chip)
    assert len(description.devices) == topology.replicas
    return list(description.devices)


def capacity(topology: Topology) -> int:
    """Bytes of HBM that a program may fill: what the compiler says in refusing one that is too large."""
    found = CAPACITY.search(_compile(TOO_LARGE, devices(topology), 1))
    assert found
    return int(float(found[1]) * 2**30)


def compile_hlo(hlo: bytes, topology: Topology) -> Compiled:
    """Compile a program (an HloModuleProto) for every replica of a topology.

    Raises ValueError if the compiler refuses it for anything but its size.
    """
    from jaxlib import _jax

    has = capacity(topology)
    executable = _compile(_jax.mlir.hlo_to_stablehlo(hlo), devices(topology), topology.replicas)
    if isinstance(executable, str):
        return Compiled(False, has)
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
    return Compiled(memory <= has, has, memory, costs["flops"], costs["bytes accessed"], len(all_reduces))


def _compile(module: str | bytes, on: list[Any], replicas: int) -> Any:
    """The executable of a StableHLO module; or what the compiler says if it does not fit."""
    import numpy as np
    from jax.interpreters import mlir
    from jaxlib import xla_client
    from jaxlib.mlir import ir

    with mlir.make_ir_context():
        parsed = ir.Module.parse(module)
    options = xla_client.CompileOptions()
    options.num_replicas, options.num_partitions = replicas, 1
    options.device_assignment = xla_client.DeviceAssignment.create(np.arange(replicas).reshape(replicas, 1))
    options.executable_build_options.exec_time_optimization_effort = EFFORT
    try:
        return on[0].client.compile(parsed, xla_client.DeviceList(tuple(on[:replicas])), options)
    except xla_client.XlaRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            return str(error)
        raise ValueError(f"The TPU's compiler must take the program. Received: {str(error)[:600]}") from None


def main() -> None:
    """For each line {"hlo": path, "topology": a name} print a Compiled, or {"error": message}."""
    os.environ.update(ENVIRONMENT)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            compiled = compile_hlo(Path(request["hlo"]).read_bytes(), TOPOLOGIES[request["topology"]])
            answer = dataclasses.asdict(compiled)
        except ValueError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
