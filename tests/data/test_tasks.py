import re
import subprocess
import sys

import pytest
from helpers import ROOT

from trainer.data import tasks


def test_every_task_is_offered_by_the_command():
    done = subprocess.run(
        [sys.executable, "scripts/prepare_data.py", "--task=no", "--output=no"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert all(name in done.stderr for name in tasks.TASKS)


@pytest.mark.parametrize("spec", tasks.TASKS.values(), ids=tasks.TASKS)
def test_what_is_downloaded_has_a_hash(spec):
    assert (spec.url is None) == (spec.sha256 is None)
    if spec.url:
        assert spec.url.startswith("https://")
        assert re.fullmatch("[0-9a-f]{64}", spec.sha256)


def test_class_names_are_in_the_order_of_the_tutorial():
    assert tasks.TASKS["imdb"].labels == tasks.TASKS["movie_snippets"].labels == ("negative", "positive")
    assert tasks.TASKS["csv"].labels is None  # the file decides


def test_every_kind_has_a_metric_that_chooses_its_best_checkpoint():
    assert tuple(tasks.MAIN_METRIC) == tasks.KINDS
