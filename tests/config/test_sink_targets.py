import pytest

from trainer.config import sink_targets


@pytest.mark.parametrize("value", [True, "on", "On", "TRUE", "yes"])
def test_words_that_switch_on_are_one_value(value):
    assert sink_targets.read_target(value) == sink_targets.ON


@pytest.mark.parametrize("value", [False, None, "off", "False", "no", "none", "None", "", " "])
def test_words_that_switch_off_are_one_value(value):
    assert sink_targets.read_target(value) == sink_targets.OFF


def test_anything_else_that_is_text_is_a_target_as_written():
    assert sink_targets.read_target("file:///Runs") == "file:///Runs"
    assert sink_targets.read_target("offline-runs") == "offline-runs"


@pytest.mark.parametrize("value", [0, 1, 2.5, [], ["on"], {}])
def test_what_is_no_text_is_no_target(value):
    assert sink_targets.read_target(value) is None
