"""How long training waits for a checkpoint in a bucket that takes 20 ms for a request. `make chaos` prints it."""

import json

import pytest

REQUEST_S = 0.02
# The shapes of BERT's variables, each with its two moments. minilm and BERT-base: layers, width.
SIZES = {"minilm": (6, 384), "BERT-base": (12, 768)}
SAVES = """
import json, statistics
from trainer.train import checkpoints
layers, width, background = json.loads(sys.argv[1])
shapes = [(30522, width), (512, width), (2, width), *[(width,)] * 3, (width, width)]
for _ in range(layers):
    shapes += [(width, width)] * 4 + [(width,)] * 9 + [(width, 4 * width), (4 * width,), (4 * width, width)]
variables = [tf.Variable(tf.ones(shape)) for _ in range(3) for shape in shapes]
state = tf.train.Checkpoint(**{f"v{number}": variable for number, variable in enumerate(variables)})
series = checkpoints.CheckpointSeries(state, folder, 2, background)
waits, wholes = [], []
for step in range(1, 6):
    started = time.monotonic()
    checkpoints.save_checkpoint(series, step, wait=not background)
    waits.append(time.monotonic() - started)
    assert checkpoints.is_saved(series, step)
    wholes.append(time.monotonic() - started)
size = sum(variable.shape.num_elements() * 4 for variable in variables)
print(json.dumps([size, statistics.median(waits[2:]), statistics.median(wholes[2:])]))  # TensorFlow makes copies first.
"""


@pytest.mark.chaos
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_training_waits_for_a_save_in_a_bucket(simulator, size, background, capsys):
    arguments = json.dumps([*SIZES[size], background])
    with simulator.faults({"do": "slow", "seconds": REQUEST_S, "times": -1}):
        out, _ = simulator.storage_python(SAVES, arguments, retry_s="60", seconds=600)
    bytes_saved, wait_s, whole_s = json.loads(out)
    with capsys.disabled():
        kind = "in the background" if background else "in the foreground"
        print(
            f"\n{size}, {bytes_saved / 1e6:.0f} MB, {kind}: waits {1000 * wait_s:.0f} ms, saved after {whole_s:.1f} s"
        )
    assert wait_s < (0.05 if background else 60)
    assert whole_s > REQUEST_S
