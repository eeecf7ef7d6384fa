import numpy as np
import pytest
import tensorflow as tf

from trainer.train import one_pass_adamw, optimizers

STEPS = 5
SHAPES = {
    "word_embeddings/embeddings": (30, 5),
    "transformer/layer_0/output/kernel": (7, 5),
    "transformer/layer_0/output/bias": (5,),
    "transformer/layer_1/output_layer_norm/gamma": (7,),
    "classifier/kernel": (5, 2),
}


def take_steps(one_pass: bool, clip_norm: float, layer_decay: float = 1.0) -> tuple[list[np.ndarray], list[float]]:
    """(the variables and the optimizer's state after some steps, the norms that were received)."""
    rng = np.random.default_rng(0)
    variables = [tf.Variable(rng.normal(size=shape), name=name, dtype=tf.float32) for name, shape in SHAPES.items()]
    optimizer = optimizers.build_adamw(0.01, 10, 0.2, 0.1)
    if layer_decay < 1:
        optimizers.decay_layer_rates(optimizer, variables, layer_decay)
    optimizers.create_slots(optimizer, variables)
    if one_pass:
        scales = optimizers.layer_rate_scales(variables, layer_decay)
        update = one_pass_adamw.build_one_pass_update(optimizer, clip_norm, scales)
    else:
        update = optimizers.build_update(optimizer, clip_norm)
    step = tf.function(lambda gradients: update(gradients, variables))
    norms = [float(step([tf.constant(rng.normal(size=s), tf.float32) for s in SHAPES.values()])) for _ in range(STEPS)]
    return [value.numpy() for value in [*variables, *optimizer.variables()]], norms


@pytest.fixture(params=[0, 35, 1 << 20])
def smallest(request, monkeypatch) -> int:
    """Every variable, two or none of them are large."""
    monkeypatch.setattr(one_pass_adamw, "MIN_ELEMENTS", request.param)
    return request.param


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
@pytest.mark.parametrize("clip_norm", [1.0, 1000.0])
def test_steps_are_those_of_the_optimizer(clip_norm, layer_decay, smallest):
    expected, expected_norms = take_steps(False, clip_norm, layer_decay)
    received, norms = take_steps(True, clip_norm, layer_decay)
    largest = max(np.abs(a - b).max() for a, b in zip(expected, received, strict=True))
    case = f"clipped to {clip_norm}, layer decay {layer_decay}, one pass from {smallest} elements"
    print(f"{case}, {STEPS} steps: largest difference {largest:.1e}")
    assert largest <= 1e-6
    assert norms == pytest.approx(expected_norms, rel=1e-6)


def test_the_same_steps_have_the_same_bits(smallest):
    first, again = take_steps(True, 1.0)[0], take_steps(True, 1.0)[0]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_gradient_that_is_not_finite_reaches_every_variable(value, smallest):
    """As from tf.clip_by_global_norm, so that the step is found to be bad."""
    variables = [tf.Variable([1.0, 2.0], name=name) for name in ("a/kernel", "b/kernel")]
    optimizer = optimizers.build_adamw(0.1, 10, 0.0, 0.0)
    optimizers.create_slots(optimizer, variables)
    update = one_pass_adamw.build_one_pass_update(optimizer, 1.0)
    norm = update([tf.constant([value, 1.0]), tf.constant([1.0, 1.0])], variables)
    assert not np.isfinite(norm)
    assert all(np.isnan(variable.numpy()).all() for variable in variables)


def test_it_takes_the_place_of_adamw_on_one_replica_only():
    one = tf.distribute.OneDeviceStrategy("/cpu:0")
    assert one_pass_adamw.suits_one_pass("adamw", one)
    assert not one_pass_adamw.suits_one_pass("lamb", one)
