"""Batches for the replicas of one process; several pipelines of one are in end_to_end/test_tpu_hosts.py."""

import itertools
import threading

import tensorflow as tf

from trainer.distributed import input_pipelines


def test_one_process_has_one_pipeline_with_every_batch():
    pipelines = []

    def build(batches, index, count):
        pipelines.append((index, count))
        return tf.data.Dataset.from_generator(lambda: batches, output_signature=tf.TensorSpec([], tf.int32))

    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    batches = input_pipelines.distribute_batches(strategy, iter(range(5)), build)
    assert [int(next(batches)) for _ in range(5)] == list(range(5))
    assert pipelines == [(0, 1)]


def test_threads_read_the_same_batches_and_make_them_once():
    made = []

    def make():
        for number in range(2000):
            made.append(number)
            yield number

    lock = threading.Lock()
    read = [[] for _ in range(4)]
    pipelines = [input_pipelines._locked(copy, lock) for copy in itertools.tee(make(), 4)]
    threads = [threading.Thread(target=rows.extend, args=(own,)) for rows, own in zip(read, pipelines, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read == [list(range(2000))] * 4
    assert made == list(range(2000))
