"""Jobs of which XLA compiles the steps, with recomputed layers, or fused layers alone, killed and resumed."""

import re
from pathlib import Path

import pytest
from interruptions import JobCommand, assert_equal_runs, read_metrics
from tensorflow.core.protobuf import saved_model_pb2

pytestmark = pytest.mark.long

COMPILED = (
    *("model.compile=xla", "model.recompute=true"),
    *("data.seq_length=64", "data.pad_multiple=1", "data.batch_size=4"),
)
FUSED = ("model.fused=on", "precision=bfloat16", "optimizer.ema=0.9")


def with_settings(command: JobCommand, settings: tuple[str, ...]) -> JobCommand:
    return JobCommand([*command.flags, *(f"--set={key}" for key in settings)], command.workers)


def count_programs(folder: Path) -> dict[str, int]:
    """How many programs XLA compiled for each function, by what it was told to write."""
    names = [path.name for path in folder.glob("*.before_optimizations.txt")]
    functions = [match[1] for name in names if (match := re.search(r"inference_(share_sums|score)_", name))]
    return {function: functions.count(function) for function in sorted(set(functions))}


def test_a_compiled_run_has_few_programs_and_resumes_bit_for_bit(make_job_command, tmp_path, monkeypatch):
    """Texts of some 10 to 50 tokens would be as many widths, and so programs of each function."""
    job = with_settings(make_job_command("cpu", 100), COMPILED)
    with monkeypatch.context() as environment:
        environment.setenv("XLA_FLAGS", f"--xla_dump_to={tmp_path / 'programs'}")
        uninterrupted = job.run_to_end(tmp_path / "uninterrupted")
    programs = count_programs(tmp_path / "programs")
    print(f"programs compiled in a run of {len(read_metrics(uninterrupted, 'train'))} log lines: {programs}")
    assert 2 <= programs["share_sums"] <= 4
    assert 2 <= programs["score"] <= 4
    assert_equal_runs(job.run_interrupted(tmp_path / "killed", "training"), uninterrupted)


def test_a_fused_run_resumes_bit_for_bit_and_exports_plain_layers(make_job_command, tmp_path):
    job = with_settings(make_job_command("cpu", 100), FUSED)
    uninterrupted = job.run_to_end(tmp_path / "uninterrupted")
    assert_equal_runs(job.run_interrupted(tmp_path / "killed", "training"), uninterrupted)
    exported = (uninterrupted / "export/saved_model.pb").read_bytes()
    (graph,) = (meta.graph_def for meta in saved_model_pb2.SavedModel.FromString(exported).meta_graphs)
    assert graph.library.function
    assert not [body.signature.name for body in graph.library.function if body.attr["_XlaMustCompile"].b]
