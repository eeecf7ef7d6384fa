import subprocess

from trainer import child_process


def test_a_module_is_found_from_any_folder(tmp_path):
    (tmp_path / "trainer").mkdir()  # Python searches the current folder first, and this is no package of ours.
    done = subprocess.run(
        child_process.command("trainer.distributed.tpu_probe_process", "local"),
        env=child_process.environment(CUDA_VISIBLE_DEVICES=""),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "TPU devices: 0\n")


def test_the_environment_is_this_process_s_with_the_changes(monkeypatch):
    monkeypatch.setenv("KEPT", "1")
    monkeypatch.setenv("CHANGED", "1")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    environment = child_process.environment(CHANGED="2")
    assert (environment["KEPT"], environment["CHANGED"]) == ("1", "2")
    assert environment["PYTHONPATH"].endswith(":/elsewhere")
