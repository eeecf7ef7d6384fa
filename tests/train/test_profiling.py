"""Profiles of some steps, by TensorFlow's profiler."""

import pytest
import tensorflow as tf

from trainer.train import profiling
from trainer.train.profiling import ProfiledSteps


def profiles(folder) -> list:
    return list(folder.rglob("*.xplane.pb"))


def run_steps(folder, steps, profiled) -> None:
    with profiling.profile_steps(str(folder), profiled) as at_step:
        for step in steps:
            at_step(step)
            tf.matmul(tf.ones([8, 8]), tf.ones([8, 8]))


@pytest.mark.parametrize("text", ["10", "20:10", "10:10", "a:b", "-1:5", ""])
def test_what_is_no_range_of_steps_is_refused(text):
    problems = []
    assert profiling.parse_steps(text, problems) is None
    (problem,) = problems
    assert (problem.setting, problem.received) == ("--profile", text)


def test_a_range_is_read():
    assert profiling.parse_steps("0:12", []) == ProfiledSteps(0, 12)
    assert profiling.parse_steps(None, []) is None


@pytest.mark.parametrize(("step", "expected"), [(0, 3), (3, 8), (5, 8), (8, 10), (9, 10)])
def test_the_loop_halts_where_the_profile_starts_and_stops(step, expected):
    assert profiling.next_boundary(step, 10, ProfiledSteps(3, 8)) == expected
    assert profiling.next_boundary(step, 10, None) == 10


@pytest.mark.parametrize("steps", [[0, 3, 8, 10], [5, 8]])  # A run that resumes at step 5 profiles the rest.
def test_the_steps_are_profiled_once(tmp_path, steps):
    run_steps(tmp_path, steps, ProfiledSteps(3, 8))
    (profile,) = profiles(tmp_path)
    assert b"MatMul" in profile.read_bytes()
    assert profile.parts[-4:-2] == ("plugins", "profile")  # where TensorBoard looks


def test_a_run_that_ends_before_leaves_none_and_the_next_can_profile(tmp_path):
    run_steps(tmp_path, [0, 3, 5], ProfiledSteps(3, 8))
    run_steps(tmp_path, [0, 1], ProfiledSteps(3, 8))
    run_steps(tmp_path, [8, 9], ProfiledSteps(3, 8))
    assert not profiles(tmp_path)
    run_steps(tmp_path, [0, 1], ProfiledSteps(0, 1))
    assert len(profiles(tmp_path)) == 1


def test_a_profile_is_uploaded(simulator):
    code = """
from trainer.storage import fs
from trainer.train import profiling
with profiling.profile_steps("gs://bucket/run/tensorboard", profiling.ProfiledSteps(0, 1)) as at_step:
    at_step(0)
    at_step(1)
print(*fs.list_names("gs://bucket/run/tensorboard/plugins/profile"))
"""
    assert simulator.storage_python(code)[0]
