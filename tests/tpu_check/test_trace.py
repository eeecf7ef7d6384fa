"""What is traced for TPUs: the sizes of encoders, and batches of one shape."""

import json

import pytest
from helpers import run_in_tpu_trace_environment

from trainer.encoders import registry

CODE = f"""
import json
from trainer.tpu_check import trace
from trainer.tpu_check.estimate import CompileCase

names = {[name for name in registry.ENCODERS if "bert/" in name or name.startswith("bert_")]}
sizes = [(a.layers, a.hidden_size, a.heads, a.vocab_size) for a in map(trace.get_architecture, names)]
full, last = trace.build_batches(CompileCase("tiny", replicas=4, seq_length=24, batch_size=6, accumulation_steps=2))
shapes = [{{name: [list(x.shape), x.dtype.name] for name, x in batch.items()}} for batch in (full, last)]
case = CompileCase("tiny", replicas=4, seq_length=24, batch_size=6, accumulation_steps=2, max_windows=3)
windows = [list(batch["input_mask"].shape) for batch in trace.build_batches(case)]
print(json.dumps([sizes, shapes, full["weight"].tolist(), last["weight"].tolist(), windows]))
"""


@pytest.fixture(scope="module")
def results() -> list:
    return json.loads(run_in_tpu_trace_environment(CODE))


def test_sizes_are_read_off_the_tutorials_names(results):
    sizes = results[0]
    assert len(sizes) == 32
    assert sizes[2] == [12, 768, 12, 119547]  # bert_multi_cased
    assert [4, 512, 8, 30522] in sizes  # The tutorial's own encoder.


def test_the_last_batch_is_padded_to_the_shape_of_the_others(results):
    _, (full, last), weights, last_weights, _ = results
    assert full == last
    assert full["input_word_ids"] == [[6, 24], "int32"]
    assert (sum(weights), sum(last_weights)) == (6, 1)


def test_every_text_is_padded_to_the_most_windows(results):
    assert results[-1] == [[6, 3, 24]] * 2
