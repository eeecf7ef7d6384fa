import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from trainer.encoders import dropout
from trainer.encoders.dropout import DropoutKey


@pytest.fixture(autouse=True, params=["philox", "threefry"])
def generator(request, monkeypatch):
    """Every test, on what a CPU or a GPU draws from and on what a TPU does."""
    monkeypatch.setattr(dropout, "_generator", lambda: getattr(dropout, f"_{request.param}_bits"))


def key(seed: int = 1, step: int = 5, first_row: int = 0) -> DropoutKey:
    return DropoutKey(*(tf.constant(value, tf.int64) for value in (seed, step, first_row)))


def mask(shape=(64, 128), rate: float = 0.5, layer: int = 3, **changes) -> np.ndarray:
    return dropout.seeded_dropout(tf.ones(shape), rate, key(**changes), layer).numpy() > 0


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
def test_a_share_is_dropped_and_the_mean_is_kept(rate, dtype):
    x = tf.ones([400, 1000], dtype)
    dropped = dropout.seeded_dropout(x, rate, key(), 0)
    assert dropped.dtype == dtype
    values = tf.cast(dropped, tf.float32).numpy()
    assert (values == 0).mean() == pytest.approx(rate, abs=0.004)  # 5 standard deviations
    assert set(np.unique(values)) == {0, np.float32(tf.cast(tf.cast(1 / (1 - rate), dtype), tf.float32))}
    assert values.mean() == pytest.approx(1, abs=0.012)
    assert (values == 0).mean(axis=0).std() < 0.035  # no column is favoured
    assert (values == 0).mean(axis=1).std() < 0.025  # and no row


def test_a_rate_of_nothing_drops_nothing():
    x = tf.random.normal([7, 5])
    assert np.array_equal(dropout.seeded_dropout(x, 0.0, key(), 0), x)


def test_the_same_key_gives_the_same_mask():
    assert np.array_equal(mask(), mask())
    graph = tf.function(lambda x: dropout.seeded_dropout(x, 0.5, key(), 3))
    assert np.array_equal(graph(tf.ones([64, 128])).numpy() > 0, mask())


@pytest.mark.parametrize(
    "change", [{"seed": 2}, {"step": 6}, {"layer": 4}, {"first_row": 64}, {"seed": 1 << 31}, {"step": 1 << 31}]
)
def test_another_key_gives_an_unrelated_mask(change):
    assert (mask() == mask(**change)).mean() == pytest.approx(0.5, abs=0.03)


def test_every_row_has_a_mask_of_its_own():
    rows = mask((200, 333))
    agreement = [(a == b).mean() for i, a in enumerate(rows) for b in rows[:i]]
    assert 0.3 < min(agreement) < max(agreement) < 0.7


@pytest.mark.parametrize("shape", [(12, 8), (12, 5), (12, 3, 7), (12, 2, 9, 9), (12, 1)])
@pytest.mark.parametrize("replicas", [2, 3, 4, 12])
def test_a_row_has_its_mask_whichever_replica_computes_it(shape, replicas):
    share = 12 // replicas
    parts = [mask((share, *shape[1:]), first_row=r * share) for r in range(replicas)]
    assert np.array_equal(np.concatenate(parts), mask(shape))


def test_the_gradient_goes_where_the_value_went():
    x = tf.random.normal([32, 17])
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(dropout.seeded_dropout(x, 0.25, key(), 0))
    gradient = tape.gradient(total, x).numpy()
    assert np.allclose(gradient, mask((32, 17), 0.25, 0) / 0.75)


@pytest.fixture
def model() -> tf_keras.Model:
    """Two dropout layers with a hidden one between; their masks are taken over, numbered from 10."""
    inner = tf_keras.Sequential([tf_keras.layers.Dropout(0.5), tf_keras.layers.Dense(4, kernel_initializer="identity")])
    model = tf_keras.Sequential([tf_keras.Input([4]), inner, tf_keras.layers.Dropout(0.25)])
    dropout.install_seeded_dropout(model, first=10)
    return model


def test_every_dropout_layer_of_a_model_is_taken_over_with_a_number_of_its_own(model):
    x = tf.ones([50, 4])
    with dropout.use_key(key()):
        received = model(x, training=True)
        assert np.array_equal(received, model(x, training=True))
    expected = dropout.seeded_dropout(dropout.seeded_dropout(x, 0.5, key(), 10), 0.25, key(), 11)
    assert np.array_equal(received, expected)


def test_outside_training_nothing_is_dropped(model):
    x = tf.random.normal([5, 4])
    assert np.array_equal(model(x), x)
    with dropout.use_key(key()):
        assert np.array_equal(model(x, training=False), x)


def test_training_without_a_key_is_a_defect(model):
    with pytest.raises(AssertionError, match=r"outside dropout.use_key"):
        model(tf.ones([5, 4]), training=True)


def test_the_innermost_key_holds_and_the_outer_comes_back():
    layer = tf_keras.layers.Dropout(0.5)
    layer.build([8, 8])
    dropout.install_seeded_dropout(tf_keras.Sequential([layer]))
    x = tf.ones([8, 8])
    with dropout.use_key(key(step=1)):
        first = layer(x, training=True).numpy()
        with dropout.use_key(key(step=2)):
            assert not np.array_equal(layer(x, training=True), first)
        assert np.array_equal(layer(x, training=True), first)


@pytest.mark.parametrize(
    ("counter", "words", "expected"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_the_known_answers(counter, words, expected):
    """Those that Random123, its authors' library, is tested with (kat_vectors, threefry2x32, 20 rounds)."""
    as_words = lambda values: tuple(tf.constant(value, tf.uint32) for value in values)  # noqa: E731
    assert tuple(int(x) for x in dropout._threefry(as_words(words), as_words(counter))) == expected
