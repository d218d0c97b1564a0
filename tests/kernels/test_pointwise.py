"""The compiled 1x1 convolution against TensorFlow's matrix products."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from effnetv2_tf.kernels import operations
from effnetv2_tf.models.layers import MBConv, PointwiseConv2D

pytestmark = pytest.mark.usefixtures("compiled")

OPERATION = "Effnetv2PointwiseConv"
NAMES = ("y", "dx", "dkernel")


@pytest.fixture(scope="module")
def make_layer(fill):
    def make(channels, filters, **options):
        return fill(PointwiseConv2D(filters, **options), channels)

    return make


# Channels and filters for parts of a vector, panels of one to three, and several panels; rows fewer
# than are multiplied at a time, and for several blocks of a sum and several threads.
@pytest.mark.parametrize(
    ("shape", "filters"),
    [
        ((1, 1, 1, 1), 1),
        ((2, 3, 5, 7), 9),
        ((7, 4), 6),
        ((3, 4, 8, 16), 48),
        ((2, 16, 16, 192), 48),
        ((8, 32, 32, 24), 40),
        ((16, 8, 8, 96), 576),
        ((5, 7, 9, 130), 33),
        ((16, 4, 4, 672), 112),
    ],
    ids=str,
)
def test_numbers_are_tensorflows(assert_near, images_of, make_layer, step, shape, filters):
    layer, images = make_layer(shape[-1], filters), images_of(shape)
    assert_near(NAMES, step(layer, images, True), step(layer, images, False), 1e-5)


@settings(max_examples=25)
@given(
    batch=st.integers(1, 4),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    channels=st.integers(1, 150),
    filters=st.integers(1, 150),
)
def test_any_shape(
    assert_near, images_of, make_layer, step, batch, height, width, channels, filters
):
    layer, images = make_layer(channels, filters), images_of((batch, height, width, channels))
    assert_near(NAMES, step(layer, images, True), step(layer, images, False), 1e-5)


def test_bias_and_activation(assert_near, images_of, make_layer, step):
    layer, images = make_layer(4, 6, use_bias=True, activation="silu"), images_of((2, 3, 5, 4))
    assert_near((*NAMES, "dbias"), step(layer, images, True), step(layer, images, False), 1e-5)


def test_kernel_gradients_are_rounded_no_more_than_tensorflows(images_of, make_layer, step):
    layer, images = make_layer(24, 40), images_of((16, 64, 64, 24))
    slopes = np.float64(images_of((16, 64, 64, 40), seed=1)).reshape(-1, 40)
    right = np.float64(images).reshape(-1, 24).T @ slopes
    error, reference = (
        np.sqrt(np.mean((step(layer, images, training)[2][0, 0] - right) ** 2))
        for training in (True, False)
    )
    assert error < 1.5 * reference, f"{error / reference:.1f} times TensorFlow's error"


def test_the_same_bits_again(assert_same_bits, make_layer, images_of):
    assert_same_bits(make_layer(24, 96), images_of((16, 32, 32, 24)))


@pytest.mark.parametrize("shape", [(0, 8, 8, 3), (2, 0, 8, 3), (0, 3)], ids=str)
def test_empty_images(images_of, make_layer, step, shape):
    y, dx, dkernel = step(make_layer(3, 5), images_of(shape), True)
    assert y.shape == (*shape[:-1], 5)
    assert dx.shape == shape
    assert not dkernel.any()


def test_nans_stay(images_of, make_layer, step):
    images = images_of((1, 5, 5, 3))
    images[0, 2, 2, 1] = np.nan
    expected = np.zeros((5, 5, 5), bool)
    expected[2, 2] = True
    np.testing.assert_array_equal(np.isnan(step(make_layer(3, 5), images, True)[0][0]), expected)


def traced(layer, training, shape=(None, None, None, 4)):
    function = tf.function(lambda x: layer(x, training=training))
    return function.get_concrete_function(tf.TensorSpec(shape)).graph


def test_shapes_are_known_as_far_as_they_are(make_layer):
    layer = make_layer(4, 6)
    assert traced(layer, True).outputs[0].shape.as_list() == [None, None, None, 6]
    assert traced(layer, True, (2, None, 5, 4)).outputs[0].shape.as_list() == [2, None, 5, 6]


@pytest.mark.parametrize("training", [False, None])
def test_an_exported_network_runs_without_the_library(make_layer, training):
    types = [operation.type for operation in traced(make_layer(4, 6), training).get_operations()]
    assert OPERATION not in types


def test_what_does_not_fit():
    convolve = operations.pointwise_conv_for(tf.float32)
    images = tf.zeros([1, 8, 8, 3])
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected a kernel of 1x1"):
        convolve(x=images, kernel=tf.zeros([3, 3, 3, 4]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected 4 channels"):
        convolve(x=images, kernel=tf.zeros([1, 1, 4, 4]))


@pytest.mark.parametrize("recompute", [False, True])
def test_blocks_train_with_it(assert_block_trains_with_it, recompute):
    expansion_and_projection = 2
    block = MBConv(8, 8, expansion=4)
    assert_block_trains_with_it(block, recompute, "MatMul", expansion_and_projection)
