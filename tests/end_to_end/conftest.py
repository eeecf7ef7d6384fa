"""Jobs for the tests that interrupt them."""

from collections.abc import Callable

import pytest
from interruptions import SAVE_EVERY_STEPS, STRATEGIES, JobCommand


@pytest.fixture(scope="module")
def make_job_command(tiny, prepared) -> Callable[[str, int], JobCommand]:
    """A function (name of STRATEGIES, steps) -> the command of a job on the reviews."""
    keys = (
        *("training.log_every=7", f"training.save_every={SAVE_EVERY_STEPS}", "training.eval_every=50"),
        *("data.batch_size=16", "data.seq_length=24", "optimizer.learning_rate=1e-3"),
        "logging.progress=off",
    )
    flags = [f"--encoder={tiny}", f"--data_dir={prepared}", *(f"--set={key}" for key in keys)]

    def make(strategy: str, steps: int) -> JobCommand:
        strategy_flags, workers = STRATEGIES[strategy]
        return JobCommand([*flags, *strategy_flags, f"--set=training.steps={steps}"], workers)

    return make
