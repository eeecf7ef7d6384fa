"""Progress and warnings on standard error, as people and as services read them."""

import os
import re

import pytest
from helpers import outcome

CODE = """
import sys
import logging
from absl import flags
from trainer.runtime import logs

flags.FLAGS(sys.argv[:1])
logs.configure(int(sys.argv[1]) if sys.argv[1:] else None)
logger = logging.getLogger("trainer.train.loop")
logger.info("step 1")
logger.warning("slow")
logger.error("gone")
logging.getLogger("absl").info("another package's note")
logging.getLogger("absl").error("another package's error")
"""
WITHOUT = {key: value for key, value in os.environ.items() if not key.startswith(("AIP_", "CLOUD_ML_"))}


def test_people_read_messages_with_a_level_before_what_matters():
    _, out, error = outcome(CODE, env=WITHOUT)
    assert out == ""
    assert error.splitlines()[:3] == ["step 1", "warning: slow", "error: gone"]
    assert "another package's error" in error
    assert "another package's note" not in error


def test_verbosity_hides_progress():
    assert outcome(CODE, "-1", env=WITHOUT)[2].splitlines()[0] == "warning: slow"


@pytest.mark.parametrize("variable", ["AIP_MODEL_DIR", "CLOUD_ML_JOB_ID"])
def test_a_service_reads_the_severity_off_absl_s_prefix(variable):
    _, _, error = outcome(CODE, env={**WITHOUT, variable: "gs://bucket/run/model"})
    ours = [line for line in error.splitlines() if "another" not in line]
    assert [line[0] for line in ours] == ["I", "W", "E"]
    assert all(re.fullmatch(r"[IWE]\d{4} [\d:.]+ +\d+ <?string>?:\d+\] (step 1|slow|gone)", line) for line in ours)


def test_no_verbosity_hides_an_error():
    assert "error: gone" in outcome(CODE, "-3", env=WITHOUT)[2].splitlines()


CALL = """
import logging, sys
from absl import logging as absl_logging
from trainer.runtime import logs

def state():
    loggers = (logging.root, logging.getLogger("trainer"))
    return [(each.handlers[:], each.level, each.propagate) for each in loggers]

@logs.shown_for_a_call()
def call():
    logging.getLogger("trainer.train.loop").info("step 1")
    logging.getLogger("trainer.train.loop").warning("slow")
    absl_logging.info("another package's note")
    logging.getLogger("elsewhere").warning("of the program")
    logging.getLogger("elsewhere").info("a note of the program")

if sys.argv[1:]:
    logging.basicConfig(format="mine: %(message)s")
before = state()
call()
assert state() == before
"""


def test_a_call_shows_what_a_command_does_and_leaves_logging_as_it_was():
    code, _, error = outcome(CALL, env=WITHOUT)
    assert code == 0, error
    assert error.splitlines() == ["step 1", "warning: slow", "of the program"]


def test_a_program_that_has_set_logging_up_decides():
    code, _, error = outcome(CALL, "configured", env=WITHOUT)
    assert code == 0, error
    assert error.splitlines() == ["mine: slow", "mine: of the program"]
