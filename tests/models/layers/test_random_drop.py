"""Dropout and stochastic depth: statistics, seeds, and rates that move without a trace."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.models.layers import Dropout, StochasticDepth

BOTH = pytest.mark.parametrize("layer_class", [Dropout, StochasticDepth])
ONES = tf.ones((2000, 3, 4, 5))


def test_dropout_drops_units_and_keeps_the_mean():
    outputs = Dropout(0.3, seed=1)(ONES, training=True).numpy()
    assert sorted(np.unique(outputs).tolist()) == [0.0, pytest.approx(1 / 0.7)]
    assert (outputs == 0).mean() == pytest.approx(0.3, abs=0.006)
    assert outputs.mean() == pytest.approx(1, abs=0.01)
    per_sample = (outputs == 0).mean((1, 2, 3))
    assert per_sample.std() == pytest.approx(np.sqrt(0.3 * 0.7 / 60), rel=0.1)  # independent


def test_stochastic_depth_drops_whole_samples_and_keeps_the_mean():
    outputs = StochasticDepth(0.3, seed=1)(ONES, training=True).numpy()
    per_sample = outputs.reshape(2000, -1)
    np.testing.assert_array_equal(per_sample, np.tile(per_sample[:, :1], 60))
    dropped = per_sample[:, 0] == 0
    assert dropped.mean() == pytest.approx(0.3, abs=0.04)
    np.testing.assert_allclose(per_sample[~dropped, 0], 1 / 0.7, rtol=1e-6)
    assert outputs.mean() == pytest.approx(1, abs=0.06)


def test_the_numbers_are_those_of_tensorflows_generator():
    layer = Dropout(0.4, seed=7)
    for position in range(2):
        expected = tf.random.stateless_uniform((5, 6), tf.constant([7, position], tf.int64)) >= 0.4
        np.testing.assert_array_equal(layer(tf.ones((5, 6)), training=True) > 0, expected)


@BOTH
def test_rate_0_and_inference_are_the_identity(layer_class):
    np.testing.assert_array_equal(layer_class(0.0)(ONES, training=True), ONES)
    np.testing.assert_array_equal(layer_class(0.5)(ONES, training=False), ONES)
    np.testing.assert_array_equal(layer_class(0.5)(ONES), ONES)


@BOTH
def test_the_rate_moves_without_a_new_trace(layer_class):
    layer, traces = layer_class(0.0, seed=2), []

    @tf.function
    def dropped_share():
        traces.append(1)
        return tf.reduce_mean(tf.cast(layer(ONES, training=True) == 0, tf.float32))

    for rate in (0.0, 0.2, 0.6, 0.0):
        layer.rate = rate
        assert layer.rate == rate
        assert float(dropped_share()) == pytest.approx(rate, abs=0.05)
    assert len(traces) == 1


@BOTH
def test_steps_differ_and_seeds_repeat(layer_class):
    def steps(seed):
        layer = layer_class(0.5, seed=seed)
        return [layer(ONES, training=True).numpy() for _ in range(3)]

    first, again, other = steps(5), steps(5), steps(6)
    assert not np.array_equal(first[0], first[1])
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], other[0])


@BOTH
def test_replicas_draw_numbers_of_their_own(two_cpus, layer_class):
    two_cpus(
        f"""
        from effnetv2_tf.models.layers import {layer_class.__name__}
        with strategy.scope():
            layer = {layer_class.__name__}(0.5, seed=3)
        step = tf.function(lambda: strategy.run(lambda: layer(tf.ones((64, 5)), training=True)))
        steps = [strategy.experimental_local_results(step()) for _ in range(2)]
        one, other = (np.array([replicas[i] for replicas in steps]) for i in range(2))
        assert (one[0] != one[1]).any() and (other[0] != other[1]).any()
        assert all((a != b).any() for a, b in zip(one, other))
        # The first replica's are those of a single device.
        alone = {layer_class.__name__}(0.5, seed=3)
        np.testing.assert_array_equal(one[0], alone(tf.ones((64, 5)), training=True))
        """
    )


@BOTH
def test_layers_without_a_seed_follow_keras_seed_and_differ(layer_class):
    def two_layers():
        keras.utils.set_random_seed(3)
        return [layer_class(0.5)(ONES, training=True).numpy() for _ in range(2)]

    (a, b), (c, d) = two_layers(), two_layers()
    np.testing.assert_array_equal(a, c)
    np.testing.assert_array_equal(b, d)
    assert not np.array_equal(a, b)


@BOTH
def test_gradients_pass_where_units_passed(layer_class):
    layer = layer_class(0.5, seed=1)
    with tf.GradientTape() as tape:
        tape.watch(ONES)
        outputs = layer(ONES, training=True)
    np.testing.assert_array_equal(tape.gradient(outputs, ONES), outputs)


@BOTH
def test_no_weights(layer_class):
    layer = layer_class(0.5)
    layer(ONES, training=True)
    assert layer.weights == []
    assert layer.count_params() == 0


@BOTH
def test_config_round_trip_tells_the_rate_in_force(layer_class):
    layer = layer_class(0.5, seed=4, name="drop")
    layer.rate = 0.25
    again = layer_class.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert (again.rate, again.seed) == (0.25, 4)


@BOTH
@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_impossible_rates(layer_class, rate):
    message = rf"{layer_class.__name__}: `rate` must lie in \[0, 1\).*rate={rate}"
    with pytest.raises(ValueError, match=message):
        layer_class(rate)
    layer = layer_class(0.1)
    with pytest.raises(ValueError, match=message):
        layer.rate = rate
    assert layer.rate == 0.1


@BOTH
def test_low_precision(layer_class):
    outputs = layer_class(0.5, seed=1, dtype="mixed_bfloat16")(ONES, training=True)
    assert outputs.dtype == tf.bfloat16
    assert set(np.unique(tf.cast(outputs, tf.float32))) == {0.0, 2.0}
