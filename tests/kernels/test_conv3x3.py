"""The compiled 3x3 convolution against TensorFlow's."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from effnetv2_tf import keras_compat
from effnetv2_tf.kernels import operations
from effnetv2_tf.models.layers import FusedMBConv, SpatialConv2D

pytestmark = pytest.mark.usefixtures("compiled")

NAMES = ("y", "dx", "dkernel")


def make_layer(channels, filters, **options):
    layer = SpatialConv2D(filters, 3, **{"padding": "same", "use_bias": False, **options})
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
    factors = images_of((*images.shape[:3], layer.filters), seed=1)

    @tf.function
    def run(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.reduce_sum((outputs := layer(images, training=training)) * factors)
        weights = map(keras_compat.tf_variable, layer.trainable_weights)
        return [outputs, *tape.gradient(loss, [images, *weights])]

    assert ("Effnetv2Conv3x3" in operations_of(run, images)) == training
    return [np.array(x) for x in run(tf.constant(images))]


# Channels for panels of one, two and three vectors and a part of one; images that end within a
# tile; tiles for several blocks; images for several threads.
@pytest.mark.parametrize(
    ("shape", "filters"),
    [
        ((1, 1, 1, 1), 1),
        ((2, 5, 7, 3), 5),
        ((3, 4, 8, 16), 24),
        ((16, 64, 64, 24), 24),
        ((4, 33, 30, 48), 192),
        ((16, 16, 16, 64), 256),
        ((5, 19, 22, 80), 40),
    ],
    ids=str,
)
def test_numbers_are_tensorflows(assert_near, shape, filters):
    layer, images = make_layer(shape[-1], filters), images_of(shape)
    assert_near(NAMES, step(layer, images, True), step(layer, images, False), 2e-5)


@settings(max_examples=25)
@given(
    batch=st.integers(1, 4),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    channels=st.integers(1, 70),
    filters=st.integers(1, 70),
)
def test_any_shape(assert_near, batch, height, width, channels, filters):
    layer, images = make_layer(channels, filters), images_of((batch, height, width, channels))
    assert_near(NAMES, step(layer, images, True), step(layer, images, False), 1e-4)


def test_rounding_is_of_the_order_of_tensorflows():
    """By the root mean square, twice its errors; with the usual points it would be four times."""
    layer, images = make_layer(48, 192), images_of((8, 32, 32, 48))
    truth = step_in_float64(layer, images)
    for name, ours, theirs, right in zip(
        NAMES, step(layer, images, True), step(layer, images, False), truth, strict=True
    ):
        error, reference = (np.sqrt(np.mean((x - right) ** 2)) for x in (ours, theirs))
        assert error < 3 * reference, f"{name}: {error / reference:.1f} times TensorFlow's error"


def step_in_float64(layer, images):
    factors = images_of((*images.shape[:3], layer.filters), seed=1).astype("float64")
    images = tf.constant(images, "float64")
    kernel = tf.constant(np.float64(layer.get_weights()[0]))
    with tf.GradientTape() as tape:
        tape.watch([images, kernel])
        loss = tf.reduce_sum((outputs := tf.nn.conv2d(images, kernel, 1, "SAME")) * factors)
    return [np.array(x) for x in (outputs, *tape.gradient(loss, [images, kernel]))]


def test_the_same_bits_again():
    """Whoever works on which part: the sums' order does not change."""
    layer, images = make_layer(24, 24), images_of((16, 32, 32, 24))
    first = step(layer, images, True)
    for _ in range(5):
        for name, a, b in zip(NAMES, first, step(layer, images, True), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize("shape", [(0, 8, 8, 3), (2, 0, 8, 3)], ids=str)
def test_empty_images(shape):
    y, dx, dkernel = step(make_layer(3, 5), images_of(shape), True)
    assert y.shape == (*shape[:3], 5)
    assert dx.shape == shape
    assert not dkernel.any()


def test_nans_stay():
    images = images_of((1, 8, 8, 3))
    images[0, 2, 2, 1] = np.nan
    y = step(make_layer(3, 5), images, True)[0]
    assert np.isnan(y[0, 1:4, 1:4]).all()
    assert not np.isnan(y[0, 4:, 4:]).any()


@pytest.mark.parametrize(
    "options",
    [
        {"strides": 2},
        {"padding": "valid"},
        {"use_bias": True},
        {"activation": "relu"},
        {"dilation_rate": 2},
        {"dtype": "mixed_bfloat16"},
    ],
    ids=str,
)
def test_other_convolutions_are_keras_own(options):
    layer = make_layer(4, 6, **options)
    keras_layer = keras.layers.Conv2D(6, 3, **{"padding": "same", "use_bias": False, **options})
    keras_layer.build((None, None, None, 4))
    keras_layer.set_weights(layer.get_weights())
    images = images_of((2, 9, 9, 4))
    function = tf.function(lambda x: layer(x, training=True))
    assert "Effnetv2Conv3x3" not in operations_of(function, images)
    np.testing.assert_array_equal(function(images), keras_layer(images))


def test_kernels_that_do_not_fit():
    convolve = operations.conv3x3_for(tf.float32)
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected a kernel of 3x3"):
        convolve(x=tf.zeros([1, 8, 8, 3]), kernel=tf.zeros([5, 5, 3, 4]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="images of 4 channels"):
        convolve(x=tf.zeros([1, 8, 8, 3]), kernel=tf.zeros([3, 3, 4, 4]))


@pytest.mark.parametrize("recompute", [False, True])
def test_blocks_train_with_it(recompute):
    block = FusedMBConv(8, 8, expansion=4)
    block.build((None, None, None, 8))
    block.recompute = recompute

    @tf.function
    def run(images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(block(images, training=True))
        return tape.gradient(loss, [keras_compat.tf_variable(block.trainable_weights[0])])

    graph = run.get_concrete_function(images_of((2, 8, 8, 8))).graph
    types = [op.type for op in graph.get_operations()]
    assert types.count("Effnetv2Conv3x3Grad") == 1
    assert "Conv2D" not in types
