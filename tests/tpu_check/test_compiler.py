"""Small programs compiled for TPUs, by .venv-tpu-compile in a process of its own."""

import json
import subprocess
import sys

import pytest
from helpers import ROOT

from trainer.tpu_check import compiler

PYTHON = ROOT / ".venv-tpu-compile/bin/python"

PROGRAMS = """
import dataclasses
import json
import os
from trainer.tpu_check import compiler

os.environ.update(compiler.ENVIRONMENT)
from jaxlib import _jax

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
programs = {
    "product": hlo(PRODUCT + "return %z : MATRIX"),
    "summed": hlo(PRODUCT + SUM),
    "too large": hlo(PRODUCT + "return %z : MATRIX", 50000),
}
answers = {}
for name, program in programs.items():
    answers[name] = dataclasses.asdict(compiler.compile_hlo(program, compiler.TOPOLOGIES["v5e-4"]))
for name, topology in compiler.TOPOLOGIES.items():
    answers[name] = compiler.capacity(topology)
foreign = hlo('%z = stablehlo.custom_call @of_ours(%x) : (MATRIX) -> MATRIX\\nreturn %z : MATRIX')
try:
    compiler.compile_hlo(foreign, compiler.TOPOLOGIES["v5e-4"])
except ValueError as error:
    answers["foreign"] = str(error)
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def compiled() -> dict:
    """A program's or a topology's name -> what the compiler says of it."""
    done = subprocess.run([PYTHON, "-c", PROGRAMS], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_a_product_costs_what_it_should(compiled):
    product = compiled["product"]
    assert product["fits"]
    assert product["flops"] == pytest.approx(2 * 1024**3, rel=0.01)
    assert product["memory"] >= 3 * 4 * 1024**2  # two matrices in, one out
    assert product["accessed"] >= 3 * 4 * 1024**2
    assert product["all_reduces"] == 0


def test_sums_over_the_replicas_are_counted(compiled):
    assert compiled["summed"]["all_reduces"] == 1


def test_a_program_that_does_not_fit_is_told_from_one_that_is_wrong(compiled):
    too_large = compiled["too large"]
    assert not too_large["fits"]
    assert too_large["capacity"] == compiled["v5e-4"]
    assert "The TPU's compiler must take the program. Received: " in compiled["foreign"]


def test_what_a_replica_has_is_a_little_less_than_its_chip_or_core(compiled):
    # GiB of HBM of a core (v2, v3) or a chip, by Google's tables of the generations.
    for name, gibibytes in {"v2-8": 8, "v3-8": 16, "v4-8": 32, "v5e-4": 16, "v5e-8": 16, "v5p-8": 95.75}.items():
        assert 0.93 < compiled[name] / 2**30 / gibibytes <= 1


def test_the_compiler_is_asked_without_tensorflow_or_jax_being_loaded():
    code = "import sys; from trainer.tpu_check import compiler, estimate"
    code += "; print({'jax', 'tensorflow'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout == "set()\n"


def test_every_topology_is_of_one_host():
    assert {topology.replicas for topology in compiler.TOPOLOGIES.values()} == {4, 8}
