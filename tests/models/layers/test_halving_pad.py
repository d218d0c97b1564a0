"""Zeros before a pooling that halves."""

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.models.layers import HalvingPad


@pytest.mark.parametrize("window", [3, 5, 7])
@pytest.mark.parametrize("sides", [(6, 9), (7, 8), (1, 2)])
def test_pads_as_same_does(window, sides):
    """A window of ones then sums what a strided "same" convolution sums."""
    x = np.random.default_rng(0).normal(size=(2, *sides, 3)).astype("f")
    padded = HalvingPad(window)(x)
    ones = np.ones((window, window, 3, 1), "f")
    expected = tf.nn.depthwise_conv2d(x, ones, [1, 2, 2, 1], "SAME")
    actual = tf.nn.depthwise_conv2d(padded, ones, [1, 2, 2, 1], "VALID")
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
    assert HalvingPad(window).compute_output_shape(x.shape) == tuple(padded.shape)


def test_sides_that_are_known_only_at_run_time():
    layer = HalvingPad(3)
    run = tf.function(layer, input_signature=[tf.TensorSpec((None, None, None, 2))])
    for sides in ((4, 5), (5, 4), (6, 6)):
        x = tf.ones((1, *sides, 2))
        np.testing.assert_array_equal(run(x), layer(x))
    assert layer.compute_output_shape((None, None, 5, 2)) == (None, None, 7, 2)


@pytest.mark.parametrize("window", [1, 4, -3, 3.0])
def test_windows_that_cannot_be(window):
    with pytest.raises(ValueError, match="`window` must be an odd integer of at least 3"):
        HalvingPad(window)


def test_config():
    assert HalvingPad.from_config(HalvingPad(5).get_config()).window == 5
