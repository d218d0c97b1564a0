"""Our SiLU against TensorFlow's."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.models.layers.activations import get_activation, hard_silu, silu

POINTS = np.concatenate([np.linspace(-12, 12, 97), [-200, -90, 0, 90, 200]]).astype("float32")


def _value_and_gradient(function, dtype):
    x = tf.constant(POINTS, dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return tf.cast(y, tf.float32), tf.cast(tape.gradient(y, x), tf.float32)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(tf.float32, 2e-6), (tf.bfloat16, 3e-2), (tf.float16, 4e-3)]
)
def test_silu_and_its_gradient(dtype, tolerance):
    expected = _value_and_gradient(tf.nn.silu, tf.float32)
    for ours, theirs in zip(_value_and_gradient(silu, dtype), expected, strict=True):
        assert np.isfinite(ours).all()
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def test_silu_in_a_graph_scales_the_incoming_gradient():
    @tf.function
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(3.0 * silu(x))
        return tape.gradient(y, x)

    expected = _value_and_gradient(tf.nn.silu, tf.float32)[1]
    np.testing.assert_allclose(run(tf.constant(POINTS)), 3 * expected, rtol=1e-5, atol=1e-5)


def test_names():
    assert get_activation("silu") is silu
    assert get_activation("swish") is silu
    assert get_activation("hard_silu") is get_activation("hard_swish") is hard_silu
    assert get_activation("relu6") is keras.activations.get("relu6")
    assert float(get_activation(None)(tf.constant(-2.0))) == -2


def test_hard_silu():
    x = tf.constant([-4.0, -3.0, -1.5, 0.0, 1.5, 3.0, 4.0])
    expected = [0, 0, -0.375, 0, 1.125, 3, 4]
    np.testing.assert_allclose(hard_silu(x), expected, rtol=1e-6)
    assert hard_silu(tf.cast(x, tf.bfloat16)).dtype == tf.bfloat16
