"""The compiled depthwise convolution against TensorFlow's."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from effnetv2_tf import keras_compat
from effnetv2_tf.kernels import operations
from effnetv2_tf.models.layers import DepthwiseConv2D, MBConv

pytestmark = pytest.mark.usefixtures("compiled")

NAMES = ("y", "dx", "dkernel")


def make_layer(channels, side=3, **options):
    layer = DepthwiseConv2D(side, **{"padding": "same", "use_bias": False, **options})
    layer.build((None, None, None, channels))
    random = np.random.default_rng(channels)
    layer.set_weights([random.normal(size=w.shape).astype("float32") for w in layer.weights])
    return layer


def images_of(shape, seed=0):
    return np.random.default_rng(seed).normal(0.3, 1.0, shape).astype("float32")


def operations_of(function, *inputs):
    return {op.type for op in function.get_concrete_function(*inputs).graph.get_operations()}


def step(layer, images, training):
    """Output, then gradients of the images and weights; without training by TensorFlow's."""
    factors = images_of(layer.compute_output_shape(images.shape), seed=1)

    @tf.function
    def run(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.reduce_sum((outputs := layer(images, training=training)) * factors)
        weights = map(keras_compat.tf_variable, layer.trainable_weights)
        return [outputs, *tape.gradient(loss, [images, *weights])]

    assert ("Effnetv2DepthwiseConv" in operations_of(run, images)) == training
    return [np.array(x) for x in run(tf.constant(images))]


# Channels for a part of a vector, whole ones, and some more; rows for blocks of eight, four and
# single pixels; images for several threads, and smaller than the kernel.
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [3, 5])
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1, 1), (2, 5, 7, 3), (3, 2, 15, 16), (16, 8, 8, 96), (5, 13, 14, 150), (2, 40, 33, 20)],
    ids=str,
)
def test_numbers_are_tensorflows(assert_near, shape, side, stride):
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
def test_any_shape(assert_near, batch, height, width, channels, side, stride):
    layer = make_layer(channels, side, strides=stride)
    images = images_of((batch, height, width, channels))
    assert_near(NAMES, step(layer, images, True), step(layer, images, False), 1e-5)


def test_kernel_gradients_are_rounded_no_more_than_tensorflows():
    layer, images = make_layer(32), images_of((8, 64, 64, 32))
    right = kernel_gradient_in_float64(layer, images)
    error, reference = (
        np.sqrt(np.mean((step(layer, images, training)[2] - right) ** 2))
        for training in (True, False)
    )
    assert error < 1.5 * reference, f"{error / reference:.1f} times TensorFlow's error"


def kernel_gradient_in_float64(layer, images):
    factors = np.float64(images_of(images.shape, seed=1))
    padded = np.pad(np.float64(images), ((0, 0), (1, 1), (1, 1), (0, 0)))
    _, height, width, channels = images.shape
    result = np.zeros((3, 3, channels, 1))
    for i in range(3):
        for j in range(3):
            part = padded[:, i : i + height, j : j + width]
            result[i, j, :, 0] = (part * factors).sum((0, 1, 2))
    return result


def test_the_same_bits_again():
    """Whoever works on which part: the sums' order does not change."""
    layer, images = make_layer(96), images_of((16, 16, 16, 96))
    first = step(layer, images, True)
    for _ in range(5):
        for name, a, b in zip(NAMES, first, step(layer, images, True), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize("shape", [(0, 8, 8, 3), (2, 0, 8, 3), (2, 8, 0, 3)], ids=str)
def test_empty_images(shape):
    y, dx, dkernel = step(make_layer(3), images_of(shape), True)
    assert y.shape == dx.shape == shape
    assert not dkernel.any()


def test_nans_stay():
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
def test_other_convolutions_are_keras_own(options):
    layer = make_layer(4, **options)
    arguments = {"kernel_size": options.get("side", 3), "padding": "same", "use_bias": False}
    arguments |= {name: value for name, value in options.items() if name != "side"}
    keras_layer = keras.layers.DepthwiseConv2D(**arguments)
    keras_layer.build((None, None, None, 4))
    keras_layer.set_weights(layer.get_weights())
    images = images_of((2, 9, 9, 4))
    function = tf.function(lambda x: layer(x, training=True))
    assert "Effnetv2DepthwiseConv" not in operations_of(function, images)
    np.testing.assert_array_equal(function(images), keras_layer(images))


def test_the_traced_shape_is_that_of_the_result():
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
def test_blocks_train_with_it(recompute):
    block = MBConv(8, 8, expansion=4)
    block.build((None, None, None, 8))
    block.recompute = recompute

    @tf.function
    def run(images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(block(images, training=True))
        return tape.gradient(loss, [keras_compat.tf_variable(block.trainable_weights[0])])

    graph = run.get_concrete_function(images_of((2, 8, 8, 8))).graph
    types = [op.type for op in graph.get_operations()]
    assert types.count("Effnetv2DepthwiseConvGrad") == 1
    assert "DepthwiseConv2dNative" not in types
