"""Group and layer normalisation against NumPy, and their independence of the batch."""

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.keras_compat import tf_variable
from effnetv2_tf.models.layers import GroupNorm
from effnetv2_tf.models.layers.group_norm import normalize_groups

SHAPE = (3, 5, 4, 8)


def images(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).normal(3.0, 2.0, shape).astype("float32")


def normalized(x, groups, epsilon=1e-3):
    """The formula, image by image and group by group, in float64."""
    y = np.empty(x.shape)
    size = x.shape[-1] // groups
    for n in range(len(x)):
        for g in range(groups):
            part = x[n, :, :, g * size : (g + 1) * size].astype(np.float64)
            centred = part - part.mean()
            scaled = centred / np.sqrt((centred**2).mean() + epsilon)
            y[n, :, :, g * size : (g + 1) * size] = scaled
    return y


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("center", [True, False])
def test_the_formula(groups, center):
    layer = GroupNorm(groups, epsilon=0.1, center=center, activation="relu")
    layer.build(SHAPE)
    rng = np.random.default_rng(1)
    gamma, beta = rng.uniform(0.5, 1.5, 8).astype("f"), rng.normal(size=8).astype("f")
    layer.set_weights([gamma, beta] if center else [gamma])
    expected = np.maximum(normalized(images(), groups, 0.1) * gamma + beta * center, 0)
    for training in (True, False):
        np.testing.assert_allclose(layer(images(), training=training), expected, atol=1e-5)


def test_initially_the_mean_is_0_and_the_variance_1():
    outputs = GroupNorm(4)(images()).numpy().reshape(3, 20, 4, 2)
    np.testing.assert_allclose(outputs.mean((1, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(outputs.var((1, 3)), 1, atol=1e-3)


@pytest.mark.parametrize("groups", [1, 4])
def test_the_gradient_is_that_of_the_formula(groups):
    """The written-out gradient against TensorFlow's of the same formula, in float64."""
    x, factors = tf.constant(images()), tf.constant(images(1))
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(normalize_groups(x, groups, 1e-3) * factors)
    found = tape.gradient(loss, x)
    x = tf.cast(x, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(x)
        parts = tf.reshape(x, (3, 20, groups, 8 // groups))
        mean, variance = tf.nn.moments(parts, (1, 3), keepdims=True)
        y = tf.reshape((parts - mean) / tf.sqrt(variance + 1e-3), SHAPE)
        loss = tf.reduce_sum(y * tf.cast(factors, tf.float64))
    np.testing.assert_allclose(found, tape.gradient(loss, x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 4])
def test_an_image_does_not_depend_on_its_batch(groups):
    layer = GroupNorm(groups)
    first, other = images(), images(5)
    other[1] = first[1]
    found = [layer(x, training=True).numpy()[1] for x in (first, other)]
    np.testing.assert_array_equal(*found)


def test_parameters_get_gradients():
    layer = GroupNorm(2)
    layer.build(SHAPE)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(images()) * images(1))
    gamma, beta = tape.gradient(loss, [tf_variable(w) for w in layer.trainable_weights])
    expected = normalized(images(), 2) * images(1)
    np.testing.assert_allclose(gamma, expected.sum((0, 1, 2)), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(beta, images(1).sum((0, 1, 2)), rtol=1e-4)


def test_statistics_are_float32_under_mixed_precision():
    """Values around 1000 have a spacing of 4 in bfloat16; squares of them would not do."""
    layer = GroupNorm(2, dtype="mixed_bfloat16")
    x = tf.cast(images() * 10 + 1000, tf.bfloat16)
    outputs = layer(x)
    assert outputs.dtype == tf.bfloat16
    assert {tf_variable(w).dtype for w in layer.weights} == {tf.float32}
    expected = normalized(tf.cast(x, tf.float32).numpy(), 2)
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), expected, atol=0.02)


def test_the_configuration_round_trips():
    layer = GroupNorm(4, epsilon=0.01, activation="silu", center=False, name="norm")
    again = GroupNorm.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert (again.groups, again.epsilon, again.center) == (4, 0.01, False)


def test_groups_that_do_not_divide():
    with pytest.raises(ValueError, match=r"groups=3, 8 channels\. Possible: 1, 2, 4, 8\."):
        GroupNorm(3).build(SHAPE)
    with pytest.raises(ValueError, match="GroupNorm: `groups` must be a positive integer"):
        GroupNorm(0)


def test_other_channels_than_it_was_built_for_are_refused():
    layer = GroupNorm(2)
    layer(tf.zeros((1, 8, 8, 8)))
    with pytest.raises(ValueError, match="axis -1 .*8"):
        layer(tf.zeros((1, 8, 8, 16)))
