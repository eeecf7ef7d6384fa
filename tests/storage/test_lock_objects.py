"""Lock objects in the simulated service: of several writers one succeeds."""

import json

from trainer.storage import lock_objects


def test_a_holder_is_described_without_its_token():
    assert json.loads(lock_objects.describe_holder({"host": "h", "token": "secret"})) == {"host": "h"}


def test_each_generation_is_replaced_by_one_writer_only(simulator):
    code = """
path = f"{folder}/.lock"
print(lock_objects.read_lock(path))
first = lock_objects.write_lock(path, {"host": "a"}, 0)
print(lock_objects.write_lock(path, {"host": "b"}, 0))
print(lock_objects.read_lock(path) == (first, {"host": "a"}))
second = lock_objects.write_lock(path, {"host": "a", "beat": "2"}, first)
print(first != second, lock_objects.write_lock(path, {"host": "b"}, first))
print(lock_objects.read_lock(path) == (second, {"host": "a", "beat": "2"}))
"""
    assert simulator.storage_python(code)[0].splitlines() == ["None", "None", "True", "True None", "True"]


def test_only_the_generation_that_was_written_is_removed(simulator):
    code = """
path = f"{folder}/.lock"
first = lock_objects.write_lock(path, {"host": "a"}, 0)
second = lock_objects.write_lock(path, {"host": "b"}, first)
lock_objects.remove_lock(path, first)
print(lock_objects.read_lock(path) == (second, {"host": "b"}))
lock_objects.remove_lock(path, second)
lock_objects.remove_lock(path, second)
print(lock_objects.read_lock(path))
"""
    assert simulator.storage_python(code)[0].splitlines() == ["True", "None"]
