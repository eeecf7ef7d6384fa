"""Small programs compiled for TPUs, in a process with .venv-tpu-compile."""

import json
import subprocess
import sys

import pytest
from helpers import ROOT, excerpt

from trainer.tpu_check import compiler

PYTHON = ROOT / ".venv-tpu-compile/bin/python"

PROGRAMS = """
import dataclasses
import json
import os
import re
from trainer.tpu_check import compiler

os.environ.update(compiler.ENVIRONMENT)
from jaxlib import _jax, xla_client

def hlo(body, size=1024):
    a = f"tensor<{size}x{size}xf32>"
    text = f"func.func @main(%x: {a}, %y: {a}) -> {a} {{\\n{body.replace('MATRIX', a)}\\n}}"
    return _jax.mlir.mlir_module_to_xla_computation(text).as_serialized_hlo_module_proto()

PRODUCT = "%z = stablehlo.dot %x, %y : (MATRIX, MATRIX) -> MATRIX\\n"
SUM = '''%s = "stablehlo.all_reduce"(%z) <{replica_groups = dense<[[0, 1, 2, 3]]> : tensor<1x4xi64>}> ({
^bb0(%a: tensor<f32>, %b: tensor<f32>):
  %c = stablehlo.add %a, %b : tensor<f32>
  stablehlo.return %c : tensor<f32>
}) : (MATRIX) -> MATRIX
return %s : MATRIX'''
RETURN = "return %z : MATRIX"
programs = {
    "product": hlo(PRODUCT + RETURN),
    "summed": hlo(PRODUCT + SUM),
    "too large": hlo(PRODUCT + RETURN, 50000),
}
results = {}
for name, program in programs.items():
    results[name] = dataclasses.asdict(compiler.compile_hlo(program, compiler.TOPOLOGIES["v5e-4"]))
# The compiler names the HBM that a program may fill only when it rejects one.
too_large = _jax.mlir.hlo_to_stablehlo(hlo(PRODUCT + RETURN, 1000000))
for name, topology in compiler.TOPOLOGIES.items():
    try:
        compiler.compile_stablehlo(too_large, topology, 1)
    except xla_client.XlaRuntimeError as error:
        results[name] = float(re.search(r"exceeds available HBM \\(([\\d.]+)G\\)", str(error))[1])
unknown = hlo('%z = stablehlo.custom_call @unknown(%x) : (MATRIX) -> MATRIX\\n' + RETURN)
try:
    compiler.compile_hlo(unknown, compiler.TOPOLOGIES["v5e-4"])
except ValueError as error:
    results["unknown call"] = str(error)
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def compiled() -> dict:
    """Name of a program -> its CompiledProgram or error; name of a topology -> GiB of HBM that a program may fill."""
    done = subprocess.run([PYTHON, "-c", PROGRAMS], cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, excerpt(done.stderr)
    return json.loads(done.stdout)


def test_the_costs_of_a_matrix_product(compiled):
    product = compiled["product"]
    assert product["fits"]
    assert product["flops"] == pytest.approx(2 * 1024**3, rel=0.01)
    assert product["memory_bytes"] >= 3 * 4 * 1024**2  # Two matrices in, one out.
    assert product["bytes_accessed"] >= 3 * 4 * 1024**2
    assert product["all_reduces"] == 0


def test_all_reduces_are_counted(compiled):
    assert compiled["summed"]["all_reduces"] == 1


def test_a_program_that_does_not_fit_is_not_an_error(compiled):
    assert compiled["too large"] == {
        "fits": False,
        "memory_bytes": 0,
        "flops": 0,
        "bytes_accessed": 0,
        "all_reduces": 0,
    }


def test_a_program_that_cannot_be_compiled_is_an_error(compiled):
    assert "A TPU program must compile. Received: " in compiled["unknown call"]


def test_the_hbm_of_a_topology_is_the_compilers_limit(compiled):
    # GiB of HBM of a core (v2, v3) or a chip, from Google's tables of the generations. A program may fill most of it.
    generations = {"v2": 8, "v3": 16, "v4": 32, "v5e": 16, "v5p": 95.75}
    for name in compiler.TOPOLOGIES:
        assert 0.93 < compiled[name] / generations[name.partition("-")[0]] <= 1
        assert compiler.TOPOLOGIES[name].hbm_gib == compiled[name]


def test_estimates_load_neither_tensorflow_nor_jax():
    code = "import sys; from trainer.tpu_check import compiler, estimate"
    code += "; print({'jax', 'tensorflow'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout == "set()\n"


def test_the_replicas_of_a_topology_are_those_of_its_hosts():
    per_host = {name: topology.replicas / topology.hosts for name, topology in compiler.TOPOLOGIES.items()}
    assert {name: 8 if name in ("v2-8", "v3-8", "v3-32", "v5e-8") else 4 for name in per_host} == per_host
