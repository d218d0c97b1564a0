"""The compiled depthwise convolution against TensorFlow's."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from effnetv2_tf.kernels import operations
from effnetv2_tf.models.layers import DepthwiseConv2D, MBConv

pytestmark = pytest.mark.usefixtures("compiled")

OPERATION = "Effnetv2DepthwiseConv"
NAMES = ("y", "dx", "dkernel")


@pytest.fixture(scope="module")
def make_layer(fill):
    def make(channels, side=3, **options):
        options = {"padding": "same", "use_bias": False, **options}
        return fill(DepthwiseConv2D(side, **options), channels)

    return make


# Channels for a part of a vector, whole ones, and some more; rows for blocks of eight, four and
# single pixels; images for several threads, and smaller than the kernel.
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [3, 5])
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1, 1), (2, 5, 7, 3), (3, 2, 15, 16), (16, 8, 8, 96), (5, 13, 14, 150), (2, 40, 33, 20)],
    ids=str,
)
def test_numbers_are_tensorflows(assert_near, images_of, make_layer, step, shape, side, stride):
    layer, images = make_layer(shape[-1], side, strides=stride), images_of(shape)
    assert_near(NAMES, step(layer, images, True), step(layer, images, False), 1e-5)


@settings(max_examples=25)
@given(
    batch=st.integers(1, 4),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    channels=st.integers(1, 70),
    side=st.sampled_from([3, 5]),
    stride=st.sampled_from([1, 2]),
)
def test_any_shape(
    assert_near, images_of, make_layer, step, batch, height, width, channels, side, stride
):
    layer = make_layer(channels, side, strides=stride)
    images = images_of((batch, height, width, channels))
    assert_near(NAMES, step(layer, images, True), step(layer, images, False), 1e-5)


def test_kernel_gradients_are_rounded_no_more_than_tensorflows(images_of, make_layer, step):
    layer, images = make_layer(32), images_of((8, 64, 64, 32))
    right = kernel_gradient_in_float64(images, np.float64(images_of(images.shape, seed=1)))
    error, reference = (
        np.sqrt(np.mean((step(layer, images, training)[2] - right) ** 2))
        for training in (True, False)
    )
    assert error < 1.5 * reference, f"{error / reference:.1f} times TensorFlow's error"


def kernel_gradient_in_float64(images, factors):
    padded = np.pad(np.float64(images), ((0, 0), (1, 1), (1, 1), (0, 0)))
    _, height, width, channels = images.shape
    result = np.zeros((3, 3, channels, 1))
    for i in range(3):
        for j in range(3):
            part = padded[:, i : i + height, j : j + width]
            result[i, j, :, 0] = (part * factors).sum((0, 1, 2))
    return result


def test_the_same_bits_again(assert_same_bits, make_layer, images_of):
    assert_same_bits(make_layer(96), images_of((16, 16, 16, 96)))


@pytest.mark.parametrize("shape", [(0, 8, 8, 3), (2, 0, 8, 3), (2, 8, 0, 3)], ids=str)
def test_empty_images(images_of, make_layer, step, shape):
    y, dx, dkernel = step(make_layer(3), images_of(shape), True)
    assert y.shape == dx.shape == shape
    assert not dkernel.any()


def test_nans_stay(images_of, make_layer, step):
    images = images_of((1, 9, 9, 3))
    images[0, 2, 2, 1] = np.nan
    expected = np.zeros((9, 9, 3), bool)
    expected[1:4, 1:4, 1] = True
    np.testing.assert_array_equal(np.isnan(step(make_layer(3), images, True)[0][0]), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"strides": 3},
        {"side": 7},
        {"padding": "valid"},
        {"use_bias": True},
        {"activation": "relu"},
        {"dilation_rate": 2},
        {"depth_multiplier": 2},
        {"dtype": "mixed_bfloat16"},
    ],
    ids=str,
)
def test_other_convolutions_are_keras_own(assert_is_keras_own, make_layer, options):
    options = {"side": 3, "padding": "same", "use_bias": False, **options}
    layer = make_layer(4, **options)
    assert_is_keras_own(layer, keras.layers.DepthwiseConv2D(options.pop("side"), **options))


def test_the_traced_shape_is_that_of_the_result(make_layer):
    layer = make_layer(3, strides=2)
    function = tf.function(lambda x: layer(x, training=True))
    traced = function.get_concrete_function(tf.TensorSpec([None, None, 9, 3], tf.float32))
    assert traced.output_shapes.as_list() == [None, None, 5, 3]


def test_what_does_not_fit():
    convolve = operations.depthwise_conv_for(tf.float32)
    images = tf.zeros([1, 8, 8, 3])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"received a tensor shaped \[7,7"):
        convolve(x=images, kernel=tf.zeros([7, 7, 3, 1]), stride=1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="images of 4 channels"):
        convolve(x=images, kernel=tf.zeros([3, 3, 4, 1]), stride=1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="stride of 1 or 2, received 3"):
        convolve(x=images, kernel=tf.zeros([3, 3, 3, 1]), stride=3)


@pytest.mark.parametrize("recompute", [False, True])
def test_blocks_train_with_it(assert_block_trains_with_it, recompute):
    block = MBConv(8, 8, expansion=4)
    assert_block_trains_with_it(block, recompute, "DepthwiseConv2dNative")
