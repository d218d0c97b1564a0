"""The compiled 3x3 convolution against TensorFlow's."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from effnetv2_tf.kernels import operations
from effnetv2_tf.models.layers import FusedMBConv, SpatialConv2D

pytestmark = pytest.mark.usefixtures("compiled")

OPERATION = "Effnetv2Conv3x3"
NAMES = ("y", "dx", "dkernel")


@pytest.fixture(scope="module")
def make_layer(fill):
    def make(channels, filters, **options):
        options = {"padding": "same", "use_bias": False, **options}
        return fill(SpatialConv2D(filters, 3, **options), channels)

    return make


# Channels for panels of one, two and three vectors and a part of one; images that end within a
# tile; tiles for several blocks; images for several threads; sides even and odd, of which stride 2
# pads one end or both.
@pytest.mark.parametrize("stride", [1, 2])
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
def test_numbers_are_tensorflows(assert_near, images_of, make_layer, step, shape, filters, stride):
    layer, images = make_layer(shape[-1], filters, strides=stride), images_of(shape)
    assert_near(NAMES, step(layer, images, True), step(layer, images, False), 2e-5)


@settings(max_examples=25)
@given(
    batch=st.integers(1, 4),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    channels=st.integers(1, 70),
    filters=st.integers(1, 70),
    stride=st.sampled_from([1, 2]),
)
def test_any_shape(
    assert_near, images_of, make_layer, step, batch, height, width, channels, filters, stride
):
    layer = make_layer(channels, filters, strides=stride)
    images = images_of((batch, height, width, channels))
    assert_near(NAMES, step(layer, images, True), step(layer, images, False), 1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_rounding_is_of_the_order_of_tensorflows(images_of, make_layer, step, stride):
    """By the root mean square, at most twice its errors; with the usual points four times."""
    layer, images = make_layer(48, 192, strides=stride), images_of((8, 32, 32, 48))
    factors = images_of(layer.compute_output_shape(images.shape), seed=1).astype("float64")
    truth = step_in_float64(layer, images, factors)
    for name, ours, theirs, right in zip(
        NAMES, step(layer, images, True), step(layer, images, False), truth, strict=True
    ):
        error, reference = (np.sqrt(np.mean((x - right) ** 2)) for x in (ours, theirs))
        assert error < 3 * reference, f"{name}: {error / reference:.1f} times TensorFlow's error"


def step_in_float64(layer, images, factors):
    images = tf.constant(images, "float64")
    kernel = tf.constant(np.float64(layer.get_weights()[0]))
    with tf.GradientTape() as tape:
        tape.watch([images, kernel])
        outputs = tf.nn.conv2d(images, kernel, layer.strides, "SAME")
        loss = tf.reduce_sum(outputs * factors)
    return [np.array(x) for x in (outputs, *tape.gradient(loss, [images, kernel]))]


@pytest.mark.parametrize("stride", [1, 2])
def test_the_same_bits_again(assert_same_bits, make_layer, images_of, stride):
    assert_same_bits(make_layer(24, 24, strides=stride), images_of((16, 32, 32, 24)))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(0, 8, 8, 3), (2, 0, 8, 3)], ids=str)
def test_empty_images(images_of, make_layer, step, shape, stride):
    layer = make_layer(3, 5, strides=stride)
    y, dx, dkernel = step(layer, images_of(shape), True)
    assert y.shape == layer.compute_output_shape(shape)
    assert dx.shape == shape
    assert not dkernel.any()


def test_nans_stay(images_of, make_layer, step):
    images = images_of((1, 8, 8, 3))
    images[0, 2, 2, 1] = np.nan
    y = step(make_layer(3, 5), images, True)[0]
    assert np.isnan(y[0, 1:4, 1:4]).all()
    assert not np.isnan(y[0, 4:, 4:]).any()


@pytest.mark.parametrize(
    "options",
    [
        {"strides": 3},
        {"strides": (1, 2)},
        {"padding": "valid"},
        {"use_bias": True},
        {"activation": "relu"},
        {"dilation_rate": 2},
        {"dtype": "mixed_bfloat16"},
    ],
    ids=str,
)
def test_other_convolutions_are_keras_own(assert_is_keras_own, make_layer, options):
    options = {"padding": "same", "use_bias": False, **options}
    assert_is_keras_own(make_layer(4, 6, **options), keras.layers.Conv2D(6, 3, **options))


def test_the_traced_shape_is_that_of_the_result(make_layer):
    layer = make_layer(3, 5, strides=2)
    function = tf.function(lambda x: layer(x, training=True))
    traced = function.get_concrete_function(tf.TensorSpec([None, None, 9, 3], tf.float32))
    assert traced.output_shapes.as_list() == [None, None, 5, 5]


def test_what_does_not_fit():
    convolve = operations.conv3x3_for(tf.float32)
    images = tf.zeros([1, 8, 8, 3])
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected a kernel of 3x3"):
        convolve(x=images, kernel=tf.zeros([5, 5, 3, 4]), stride=1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="images of 4 channels"):
        convolve(x=images, kernel=tf.zeros([3, 3, 4, 4]), stride=1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="stride of 1 or 2, received 3"):
        convolve(x=images, kernel=tf.zeros([3, 3, 3, 4]), stride=3)


@pytest.mark.parametrize(("stride", "side"), [(1, 4), (2, 8)])
def test_a_gradient_that_does_not_fit(stride, side):
    library = operations.load()
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"shaped \[1,(8,8|4,4),4\], received"):
        library.effnetv2_conv3x3_grad(
            dy=tf.zeros([1, side, side, 4]),
            x=tf.zeros([1, 8, 8, 3]),
            kernel=tf.zeros([3, 3, 3, 4]),
            stride=stride,
        )


@pytest.mark.parametrize("stride", [1, 2])
def test_more_threads_than_tiles(assert_near, images_of, stride):
    """Thousands of filters of one tile: sums of threads that have none are not added."""
    library = operations.load()
    x, kernel = images_of((1, 4, 4, 8)), images_of((3, 3, 8, 8192))
    with tf.GradientTape() as tape:
        tape.watch([x := tf.constant(x), kernel := tf.constant(kernel)])
        y = tf.nn.conv2d(x, kernel, stride, "SAME")
    dy = images_of(y.shape, seed=1)
    expected = tape.gradient(y, [x, kernel], dy)
    for _ in range(3):
        used = [tf.fill([2 * 36 * 8 * 8192], np.nan) for _ in range(3)]
        del used  # whose memory the operation takes over
        found = library.effnetv2_conv3x3_grad(dy=dy, x=x, kernel=kernel, stride=stride)
        assert_near(NAMES[1:], map(np.array, found), map(np.array, expected), 1e-5)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_blocks_train_with_it(assert_block_trains_with_it, recompute, stride):
    block = FusedMBConv(8, 8, expansion=4, stride=stride)
    assert_block_trains_with_it(block, recompute, "Conv2D")
