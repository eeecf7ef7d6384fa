import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from trainer.train import averages


@pytest.fixture
def model() -> tf_keras.Model:
    built = tf_keras.Sequential([tf_keras.Input([2]), tf_keras.layers.Dense(1)])
    for variable in built.variables:
        variable.assign(tf.ones(variable.shape))
    return built


def expected_averages(values: list[float], decay: float) -> list[float]:
    """What TensorFlow's class makes of these values of a variable that was 1; it is for graphs."""
    with tf.Graph().as_default():
        variable, count = tf.compat.v1.Variable(1.0), tf.compat.v1.placeholder(tf.int64)
        average = tf.train.ExponentialMovingAverage(decay, num_updates=count)
        update = average.apply([variable])
        with tf.compat.v1.Session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            expected = []
            for step, value in enumerate(values, 1):
                session.run(variable.assign(value))
                session.run(update, {count: step})
                expected.append(float(session.run(average.average(variable))))
    return expected


def test_an_average_is_that_of_tensorflows_formula(model):
    values = [float(step * step) for step in range(1, 12)]
    ours = averages.create_averages(model, 0.5)
    for step, (value, expected) in enumerate(zip(values, expected_averages(values, 0.5), strict=True), 1):
        for variable in model.trainable_variables:
            variable.assign(tf.fill(variable.shape, value))
        averages.update_averages(ours, model.trainable_variables, tf.constant(step, tf.int64))
        for average in ours.variables:
            assert average.numpy() == pytest.approx(np.full(average.shape, expected), rel=1e-6)


def test_averages_start_from_the_weights_and_move_to_a_model(model):
    ours = averages.create_averages(model, 0.9)
    model.layers[0].kernel.assign([[3.0], [4.0]])
    averages.copy_to_model(ours, model)
    assert model.layers[0].kernel.numpy().tolist() == [[1.0], [1.0]]
    model.layers[0].bias.assign([7.0])
    averages.copy_from_model(ours, model)
    assert ours.variables[1].numpy().tolist() == [7.0]
