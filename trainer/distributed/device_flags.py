"""What --strategy and --virtual_devices may be, which is known without TensorFlow."""

from trainer.errors import Problem

STRATEGY_NAMES = ("auto", "cpu", "one_device", "mirrored", "multi_worker", "tpu")


def find_value_problems(strategy: str, virtual_devices: int | None) -> list[Problem]:
    """What is wrong with the values of the two flags."""
    problems = []
    if strategy not in STRATEGY_NAMES:
        problems.append(Problem("--strategy", f"be one of {', '.join(STRATEGY_NAMES)}", strategy))
    if virtual_devices is not None and virtual_devices < 1:
        problems.append(Problem("--virtual_devices", "be at least 1", str(virtual_devices)))
    return problems
