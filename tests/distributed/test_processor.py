"""The processor, read from Linux's description of it."""

import platform

from trainer.distributed import processor

TWO_CORES = """
processor	: 0
model name	: Some CPU @ 2.00GHz: the first
flags		: fpu avx512f amx_bf16

processor	: 1
model name	: Another CPU
flags		: fpu
"""


def test_the_first_processor_is_described(tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(TWO_CORES)
    monkeypatch.setattr(processor, "DESCRIPTION_FILE", str(tmp_path / "cpuinfo"))
    described = processor.describe_processor()
    assert described.name == "Some CPU @ 2.00GHz: the first"
    assert described.features == {"fpu", "avx512f", "amx_bf16"}
    assert described.has_bfloat16


def test_without_a_description_the_architecture_is_the_name(tmp_path, monkeypatch):
    monkeypatch.setattr(processor, "DESCRIPTION_FILE", str(tmp_path / "missing"))
    described = processor.describe_processor()
    assert described == processor.Processor(platform.machine(), frozenset(), described.cores)
    assert described.cores >= 1
    assert not described.has_bfloat16
