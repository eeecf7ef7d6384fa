import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from trainer.encoders import dropout
from trainer.encoders.dropout import DropoutKey


@pytest.fixture(autouse=True, params=["philox", "threefry"])
def generator(request, monkeypatch):
    """Run every test with the generator of CPUs and GPUs, and with that of TPUs."""
    monkeypatch.setattr(dropout, "_bit_generator", lambda: getattr(dropout, f"_{request.param}_bits"))


def key(seed: int = 1, step: int = 5, first_row: int = 0, depth: int = 0) -> DropoutKey:
    return DropoutKey(*(tf.constant(value, tf.int64) for value in (seed, step, first_row)), depth)


def mask(shape=(64, 128), rate: float = 0.5, layer: int = 3, **changes) -> np.ndarray:
    return dropout.seeded_dropout(tf.ones(shape), rate, key(**changes), layer).numpy() > 0


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
def test_the_rate_is_the_share_of_zeros_and_the_mean_is_unchanged(rate, dtype):
    x = tf.ones([400, 1000], dtype)
    dropped = dropout.seeded_dropout(x, rate, key(), 0)
    assert dropped.dtype == dtype
    values = tf.cast(dropped, tf.float32).numpy()
    assert (values == 0).mean() == pytest.approx(rate, abs=0.004)  # 5 standard deviations
    assert set(np.unique(values)) == {0, np.float32(tf.cast(tf.cast(1 / (1 - rate), dtype), tf.float32))}
    assert values.mean() == pytest.approx(1, abs=0.012)
    assert (values == 0).mean(axis=0).std() < 0.035  # the same in every column
    assert (values == 0).mean(axis=1).std() < 0.025  # and in every row


def test_rate_zero_changes_nothing():
    x = tf.random.normal([7, 5])
    assert np.array_equal(dropout.seeded_dropout(x, 0.0, key(), 0), x)


def test_the_same_key_gives_the_same_mask():
    assert np.array_equal(mask(), mask())
    graph = tf.function(lambda x: dropout.seeded_dropout(x, 0.5, key(), 3))
    assert np.array_equal(graph(tf.ones([64, 128])).numpy() > 0, mask())


@pytest.mark.parametrize(
    "change",
    [{"seed": 2}, {"step": 6}, {"layer": 4}, {"depth": 1}, {"first_row": 64}, {"seed": 1 << 31}, {"step": 1 << 31}],
)
def test_another_key_gives_an_unrelated_mask(change):
    assert (mask() == mask(**change)).mean() == pytest.approx(0.5, abs=0.03)


def test_every_row_has_its_own_mask():
    rows = mask((200, 333))
    agreement = [(a == b).mean() for i, a in enumerate(rows) for b in rows[:i]]
    assert 0.3 < min(agreement) < max(agreement) < 0.7


@pytest.mark.parametrize("shape", [(12, 8), (12, 5), (12, 3, 7), (12, 2, 9, 9), (12, 1)])
@pytest.mark.parametrize("replicas", [2, 3, 4, 12])
def test_a_rows_mask_is_the_same_on_every_replica(shape, replicas):
    rows = 12 // replicas
    masks = [mask((rows, *shape[1:]), first_row=replica * rows) for replica in range(replicas)]
    assert np.array_equal(np.concatenate(masks), mask(shape))


def test_the_gradient_has_the_mask_of_the_values():
    x = tf.random.normal([32, 17])
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(dropout.seeded_dropout(x, 0.25, key(), 0))
    gradient = tape.gradient(total, x).numpy()
    assert np.allclose(gradient, mask((32, 17), 0.25, 0) / 0.75)


@pytest.fixture
def model() -> tf_keras.Model:
    """A model with two seeded dropout layers, numbered 10 and 11, and the identity between them."""
    inner = tf_keras.Sequential([tf_keras.layers.Dropout(0.5), tf_keras.layers.Dense(4, kernel_initializer="identity")])
    model = tf_keras.Sequential([tf_keras.Input([4]), inner, tf_keras.layers.Dropout(0.25)])
    dropout.install_seeded_dropout(model, first_number=10)
    return model


def test_every_dropout_layer_gets_its_own_number(model):
    x = tf.ones([50, 4])
    with dropout.use_key(key()):
        received = model(x, training=True)
        assert np.array_equal(received, model(x, training=True))
    expected = dropout.seeded_dropout(dropout.seeded_dropout(x, 0.5, key(), 10), 0.25, key(), 11)
    assert np.array_equal(received, expected)


def test_nothing_is_dropped_outside_training(model):
    x = tf.random.normal([5, 4])
    assert np.array_equal(model(x), x)
    with dropout.use_key(key()):
        assert np.array_equal(model(x, training=False), x)


def test_training_without_a_key_fails(model):
    with pytest.raises(AssertionError, match=r"use_key"):
        model(tf.ones([5, 4]), training=True)


def test_the_inner_key_is_active_until_its_block_ends():
    layer = tf_keras.layers.Dropout(0.5)
    layer.build([8, 8])
    dropout.install_seeded_dropout(tf_keras.Sequential([layer]))
    x = tf.ones([8, 8])
    with dropout.use_key(key(step=1)):
        first = layer(x, training=True).numpy()
        with dropout.use_key(key(step=2)):
            assert not np.array_equal(layer(x, training=True), first)
        assert np.array_equal(layer(x, training=True), first)


def test_a_layer_that_is_called_at_several_depths_has_other_masks(model):
    x = tf.ones([50, 4])

    def at(depth):
        with dropout.use_depth(depth):
            return model(x, training=True).numpy()

    with dropout.use_key(key()):
        assert np.array_equal(at(0), model(x, training=True))
        assert np.array_equal(at(1), at(1))
        assert len({at(depth).tobytes() for depth in range(3)}) == 3
    with dropout.use_depth(1):  # without a key, nothing is dropped
        assert np.array_equal(model(x), x)


@pytest.mark.parametrize(
    ("counter", "key_words", "expected"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_the_published_answers(counter, key_words, expected):
    """Source: kat_vectors of Random123, the authors' library, threefry2x32 with 20 rounds."""
    arguments = [[tf.constant(value, tf.uint32) for value in words] for words in (key_words, counter)]
    assert tuple(int(word) for word in dropout._threefry(*arguments)) == expected
