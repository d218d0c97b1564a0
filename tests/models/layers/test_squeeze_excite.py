"""Squeeze-excite by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.keras_compat import tf_variable
from effnetv2_tf.models.layers import SqueezeExcite


def _silu(x):
    return x / (1 + np.exp(-x))


def test_by_hand():
    layer = SqueezeExcite(4, 2)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(3, 5, 6, 4)).astype("float32")
    layer(images)
    reduce, reduce_bias, expand, expand_bias = (
        rng.normal(size=w.shape).astype("float32") for w in layer.weights
    )
    layer.set_weights([reduce, reduce_bias, expand, expand_bias])
    hidden = _silu(images.mean((1, 2)) @ reduce[0, 0] + reduce_bias)
    gate = 1 / (1 + np.exp(-(hidden @ expand[0, 0] + expand_bias)))
    np.testing.assert_allclose(layer(images), images * gate[:, None, None], rtol=1e-4, atol=1e-5)


def test_the_inner_activation_is_the_given_one():
    layer = SqueezeExcite(2, 1, activation="relu")
    images = np.ones((1, 2, 2, 2), "float32")
    layer(images)
    layer.set_weights(
        [np.full((1, 1, 2, 1), -1.0), np.zeros(1), np.ones((1, 1, 1, 2)), np.zeros(2)]
    )
    np.testing.assert_allclose(layer(images), images * 0.5)  # relu(-2) = 0, sigmoid(0) = 0.5


def _gradients(layer, images):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(images) ** 2)
    return tape.gradient(loss, [tf_variable(w) for w in layer.trainable_weights])


def test_every_variable_gets_a_gradient():
    layer = SqueezeExcite(4, 2)
    images = tf.random.stateless_normal((2, 3, 3, 4), (1, 2))
    layer(images)
    gradients = [tf.reduce_max(tf.abs(g)) for g in _gradients(layer, images)]
    assert len(gradients) == 4
    assert min(gradients) > 0


def test_the_gradient_of_the_images_is_tensorflows():
    layer = SqueezeExcite(4, 2)
    images = tf.random.stateless_normal((2, 3, 5, 4), (1, 2))
    layer(images)
    weights = tf.random.stateless_normal((2, 3, 5, 4), (3, 4))

    def plain(x):
        gate = layer.expand(layer.reduce(tf.reduce_mean(x, axis=[1, 2], keepdims=True)))
        return x * gate

    gradients = []
    for function in (layer, plain):
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.reduce_sum(function(images) * weights)
        gradients.append(tape.gradient(loss, images))
    np.testing.assert_allclose(*gradients, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activation", ["silu", "relu6"])
def test_config_round_trip(activation):
    layer = SqueezeExcite(8, 3, activation=activation, name="se")
    again = SqueezeExcite.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize("shape", [(5, 5, 16), (5, 8)])
def test_other_inputs_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected images \(batch, height, width, 8\)"):
        SqueezeExcite(8, 2)(keras.Input(shape))
