"""1x1 convolution as a matrix product against Keras's Conv2D."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.keras_compat import tf_variable
from effnetv2_tf.models.layers import PointwiseConv2D


def _pair(channels=3, **options):
    ours = PointwiseConv2D(5, **options)
    theirs = keras.layers.Conv2D(5, 1, **{"use_bias": False, **options})
    rng = np.random.default_rng(0)
    for layer in (ours, theirs):
        layer.build((None, None, None, channels))
    weights = [rng.normal(size=w.shape).astype("float32") for w in theirs.weights]
    for layer in (ours, theirs):
        layer.set_weights(weights)  # the kernels have the same shape
    return ours, theirs


@pytest.mark.parametrize("options", [{}, {"use_bias": True, "activation": "sigmoid"}])
@pytest.mark.parametrize("size", [(1, 1), (7, 3)])
def test_outputs_and_gradients_are_conv2d(options, size):
    ours, theirs = _pair(**options)
    images = tf.constant(np.random.default_rng(1).normal(size=(2, *size, 3)), tf.float32)
    results = []
    for layer in (ours, theirs):
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = layer(images)
            loss = tf.reduce_sum(outputs**2)
        results.append(
            [outputs, *tape.gradient(loss, [images, *(tf_variable(w) for w in layer.weights)])]
        )
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "shape", [(None, None, None, 3), (2, None, None, 3), (None, 4, None, 3), (2, 4, 6, 3)]
)
def test_any_side_may_be_unknown(shape):
    ours, theirs = _pair()

    @tf.function(input_signature=[tf.TensorSpec(shape)])
    def run(images):
        outputs = ours(images)
        assert outputs.shape.as_list() == [*shape[:-1], 5]
        return outputs

    images = tf.constant(np.random.default_rng(1).normal(size=(2, 4, 6, 3)), tf.float32)
    np.testing.assert_allclose(run(images), theirs(images), atol=1e-5)


def test_an_empty_batch():
    ours, _ = _pair()
    assert ours(tf.zeros((0, 4, 6, 3))).shape == (0, 4, 6, 5)


def test_it_computes_in_the_layers_precision():
    layer = PointwiseConv2D(5, use_bias=True, dtype="mixed_bfloat16")
    assert layer(tf.zeros((1, 2, 2, 3))).dtype == tf.bfloat16
    assert layer.kernel.numpy().dtype == np.float32


def test_config_round_trip():
    layer = PointwiseConv2D(5, use_bias=True, activation="silu", kernel_initializer="ones")
    again = PointwiseConv2D.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    again(tf.zeros((1, 1, 1, 2)))
    np.testing.assert_array_equal(again.get_weights()[0], np.ones((1, 1, 2, 5)))


@pytest.mark.parametrize("filters", [0, -1, 2.5])
def test_impossible_filters(filters):
    with pytest.raises(ValueError, match=f"`filters` must be a positive integer.*{filters}"):
        PointwiseConv2D(filters)


def test_single_pixels_may_come_as_a_matrix():
    ours, _ = _pair(use_bias=True, activation="silu")
    pixels = tf.constant(np.random.default_rng(1).normal(size=(2, 3)), tf.float32)
    images = pixels[:, tf.newaxis, tf.newaxis, :]
    assert ours.compute_output_shape((None, 3)) == (None, 5)
    np.testing.assert_array_equal(ours(pixels), ours(images)[:, 0, 0, :])
