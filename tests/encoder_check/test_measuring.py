import pytest
import tensorflow as tf
from fakes.encoders import save_callable
from helpers import python

from trainer.encoder_check import measuring
from trainer.encoders import native
from trainer.encoders.registry import EncoderFolders


def check(folder, **options):
    sizes = {"batch_size": 4, "seq_length": 16, "rounds": 3, **options}
    return measuring.check_encoder(EncoderFolders(str(folder), str(folder), ""), **sizes)


@pytest.mark.parametrize("family", ["albert", "talking_heads"])
def test_a_rebuilt_encoder_has_a_difference_and_three_times(make_encoder, family):
    found = check(make_encoder(f"tiny_{family}") / "encoder")
    assert (found.family, found.reason) == (family, "")
    assert 0 <= found.difference < 1e-5
    assert found.step_ms.keys() == {"Hub", "float32", "bfloat16"}
    assert found.speedup == found.step_ms["Hub"] / found.step_ms["bfloat16"]
    assert len(found.cells()) == len(measuring.COLUMNS)
    assert all(cell not in ("", "-") for cell in found.cells())


def test_an_encoder_of_no_family_has_a_reason_and_the_hubs_time(tmp_path):
    ids = {name: tf.TensorSpec([None, None], tf.int32) for name in native.INPUT_NAMES}

    def pool(table, inputs):
        return {"pooled_output": tf.reduce_mean(tf.gather(table, inputs["input_word_ids"]), 1)}

    save_callable(tmp_path, ids, pool)
    found = check(tmp_path)
    assert found.parameters == 64
    assert "encoder_outputs" in found.reason
    assert found.step_ms.keys() == {"Hub"}
    assert found.cells()[1:4] == ["none", "64", "-"]


def test_the_command_prints_a_row_for_each_encoder(tiny):
    done = python("scripts/check_encoders.py", "--rounds=1", "--seq_length=8", tiny, "random:tiny_albert", check=True)
    heading, *rows = [line.split() for line in done.stdout.splitlines()]
    assert heading[:4] == ["encoder", "family", "parameters", "difference"]
    assert [row[:2] for row in rows] == [[str(tiny), "bert"], ["random:tiny_albert", "albert"]]


def test_the_command_needs_an_encoder():
    assert python("scripts/check_encoders.py").returncode == 2
