"""GPUs that TensorFlow has no kernels for, by the details that it gives of a device. No GPU is needed."""

import pytest
import tensorflow as tf

from trainer.distributed import gpu_support, strategies
from trainer.errors import UsageError


@pytest.mark.parametrize(
    ("name", "capability"),
    [("NVIDIA B200", (10, 0)), ("NVIDIA B300", (10, 3)), ("NVIDIA RTX PRO 6000", (12, 0)), ("NVIDIA GB10", (12, 1))],
)
def test_a_gpu_newer_than_the_kernels_is_refused_by_name(name, capability):
    (problem,) = gpu_support.find_gpus_without_kernels(
        "auto", [{"device_name": name, "compute_capability": capability}]
    )
    assert problem.setting == "--strategy=auto"
    assert problem.received == f"{name} (compute capability {capability[0]}.{capability[1]})"
    assert "--strategy=cpu" in problem.advice


@pytest.mark.parametrize("capability", [(6, 1), (7, 5), (8, 0), (8, 9), (9, 0)])
def test_a_gpu_with_kernels_is_let_through(capability):
    assert gpu_support.find_gpus_without_kernels("mirrored", [{"compute_capability": capability}]) == []


@pytest.mark.parametrize("details", [[], [{}], [{"device_name": "METAL"}]])
def test_without_a_capability_nothing_is_refused(details):
    assert gpu_support.find_gpus_without_kernels("auto", details) == []


def test_every_gpu_that_is_too_new_is_named_and_no_other():
    details = [
        {"device_name": "NVIDIA L4", "compute_capability": (8, 9)},
        {"device_name": "NVIDIA B200", "compute_capability": (10, 0)},
        {"device_name": "NVIDIA RTX PRO 6000", "compute_capability": (12, 0)},
    ]
    (problem,) = gpu_support.find_gpus_without_kernels("mirrored", details)
    assert "L4" not in problem.received
    assert problem.received.count("compute capability") == 2


@pytest.fixture
def blackwell(monkeypatch):
    """A machine that TensorFlow lists such a GPU of: there is none here."""
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a device"])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {"compute_capability": (10, 0)})


@pytest.mark.parametrize(
    ("strategy", "tpu", "looks"),
    [
        ("auto", None, True),
        ("one_device", None, True),
        ("mirrored", None, True),
        ("multi_worker", None, True),
        ("auto", "local", False),
        ("tpu", "local", False),
        ("cpu", None, False),
    ],
)
def test_only_a_strategy_that_uses_gpus_is_refused(blackwell, strategy, tpu, looks):
    assert bool(gpu_support.find_gpu_problems(strategy, tpu)) is looks


def test_a_gpu_is_refused_with_the_other_problems_of_the_devices(blackwell):
    with pytest.raises(UsageError) as caught:
        strategies.request_devices("mirrored", 0, None, {}, trains=True)
    assert [problem.setting for problem in caught.value.problems] == ["--virtual_devices", "--strategy=mirrored"]


def test_the_installed_build_has_no_kernels_for_what_is_refused():
    """Once TensorFlow has them, the refusal has to go."""
    capabilities = tf.sysconfig.get_build_info()["cuda_compute_capabilities"]
    newest = max(int(name.rpartition("_")[2]) for name in capabilities)
    major, minor = gpu_support.FIRST_WITHOUT_KERNELS
    assert newest < 10 * major + minor
