import numpy as np
import pytest
import tensorflow as tf
from official.nlp import modeling

from trainer.train import optimizers


@pytest.mark.parametrize(
    ("warmup", "step", "expected"),
    [
        (0.1, 0, 0.0),
        (0.1, 5, 0.5),  # half of the warm-up
        (0.1, 10, 0.9),  # the end of the warm-up, on the line from the peak at step 0 to zero at step 100
        (0.1, 55, 0.45),
        (0.1, 99, 0.01),  # the last step
        (0.1, 100, 0.0),
        (0.0, 0, 1.0),
        (0.0, 50, 0.5),
        (0.001, 0, 1.0),  # less than half a step of warm-up is none
    ],
)
def test_the_learning_rate_rises_and_then_falls_to_zero(warmup, step, expected):
    assert float(optimizers.learning_rate_schedule(3e-4, 100, warmup)(step)) == pytest.approx(
        3e-4 * expected, abs=1e-10
    )


def test_weights_decay_and_biases_and_layer_norms_do_not():
    encoder = modeling.networks.BertEncoderV2(
        vocab_size=20, hidden_size=8, num_layers=2, num_attention_heads=2, inner_dim=16
    )
    encoder(encoder.inputs)
    variables = encoder.trainable_variables
    for variable in variables:
        variable.assign(tf.fill(variable.shape, 2.0))  # since zero does not change by decay
    optimizer = optimizers.build_adamw(0.5, 10, 0.0, 0.1)
    optimizers.create_slots(optimizer, variables)
    optimizers.apply_gradients(optimizer, [tf.zeros_like(v) for v in variables], variables)
    last_names = {v.name: v.name.split("/")[-1].split(":")[0] for v in variables}
    assert set(last_names.values()) == {"embeddings", "kernel", "bias", "gamma", "beta"}
    for variable in variables:
        decayed = last_names[variable.name] in ("embeddings", "kernel")
        expected = 2.0 * (1 - 0.5 * 0.1) if decayed else 2.0
        assert variable.numpy() == pytest.approx(np.full(variable.shape, expected)), variable.name


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_each_layer_has_the_rate_of_the_one_above_it_times_the_decay(name):
    names = ("word_embeddings/embeddings", "transformer/layer_0/a/kernel", "transformer/layer_1/a/kernel", "b/kernel")

    def distances(layer_decay: float) -> list[float]:
        """How far a step moves a variable of each depth. The weight decay is part of it."""
        variables = [tf.Variable([2.0], name=name) for name in names]
        optimizer = optimizers.OPTIMIZERS[name](0.1, 10, 0.0, 0.01)
        if layer_decay < 1:
            optimizers.decay_layer_rates(optimizer, variables, layer_decay)
        optimizers.create_slots(optimizer, variables)
        optimizers.apply_gradients(optimizer, [tf.constant([3.0])] * 4, variables)
        return [2.0 - float(variable[0]) for variable in variables]

    full = distances(1.0)
    assert full == pytest.approx([full[0]] * 4)
    assert distances(0.5) == pytest.approx([full[0] * share for share in (1 / 8, 1 / 4, 1 / 2, 1)], rel=1e-5)


def test_gradients_are_clipped_by_their_global_norm():
    gradients = [tf.constant([3.0, 0.0]), tf.constant([[0.0], [4.0]])]
    clipped, norm = optimizers.clip_gradients(gradients, 1.0)
    assert float(norm) == pytest.approx(5.0)
    assert np.concatenate([c.numpy().ravel() for c in clipped]) == pytest.approx([0.6, 0, 0, 0.8])
    unchanged, norm = optimizers.clip_gradients(gradients, 10.0)
    assert float(norm) == pytest.approx(5.0)
    assert np.concatenate([c.numpy().ravel() for c in unchanged]) == pytest.approx([3, 0, 0, 4])


def test_the_optimizer_does_not_clip_again():
    variable = tf.Variable([0.0, 0.0], name="kernel")
    optimizer = optimizers.build_adamw(0.1, 10, 0.0, 0.0)
    optimizers.apply_gradients(optimizer, [tf.constant([300.0, 400.0])], [variable])
    assert optimizer.get_slot(variable, "m").numpy() == pytest.approx([30.0, 40.0])


def test_slots_exist_before_the_first_step():
    variables = [tf.Variable([1.0], name="kernel"), tf.Variable([[1.0]], name="other/kernel")]
    optimizer = optimizers.build_adamw(0.1, 10, 0.0, 0.0)
    optimizers.create_slots(optimizer, variables)
    assert len(optimizer.variables()) == 1 + 2 * len(
        variables
    )  # the number of steps, and two moments for each variable
    assert int(optimizer.iterations) == 0


@pytest.mark.parametrize(("name", "weight_decay"), [("kernel", 0.0), ("kernel", 0.1), ("layer_norm/gamma", 0.1)])
def test_lamb_steps_are_those_of_its_paper(name, weight_decay):
    """Algorithm 2 of You et al. 2019 in NumPy. Layer norms are neither decayed nor scaled."""
    rng = np.random.default_rng(0)
    variable = tf.Variable(rng.normal(size=(4, 3)), name=name, dtype=tf.float32)
    weights, m, v = variable.numpy().astype(np.float64), 0.0, 0.0
    optimizer = optimizers.build_lamb(0.5, 10, 0.0, weight_decay)
    optimizers.create_slots(optimizer, [variable])
    for step in range(3):
        gradient = rng.normal(size=(4, 3))
        optimizers.apply_gradients(optimizer, [tf.constant(gradient, tf.float32)], [variable])
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        direction = m / (1 - 0.9 ** (step + 1)) / (np.sqrt(v / (1 - 0.999 ** (step + 1))) + 1e-6)
        scale = 1.0
        if name == "kernel":
            direction += weight_decay * weights
            scale = np.linalg.norm(weights) / np.linalg.norm(direction)
        weights = weights - 0.5 * (1 - step / 10) * scale * direction
        assert variable.numpy() == pytest.approx(weights, rel=1e-4, abs=1e-5)
