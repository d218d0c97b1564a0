"""The compiled squeeze-and-excitation against TensorFlow's operations."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from effnetv2_tf.models.layers import SqueezeExcite

pytestmark = pytest.mark.usefixtures("compiled")

OPERATION = "Effnetv2SqueezeExcite"
NAMES = ("y", "dx", "d reduce", "d reduce bias", "d expand", "d expand bias")


@pytest.fixture(scope="module")
def make_layer(fill):
    def make(channels, squeezed, **options):
        return fill(SqueezeExcite(channels, squeezed, **options), channels)

    return make


# Fewer and more channels than a vector or a sum of 16, more pixels than a block of 64, images for
# several threads.
@pytest.mark.parametrize(
    ("shape", "squeezed"),
    [((2, 3, 5, 1), 1), ((9, 33, 31, 16), 4), ((3, 16, 16, 96), 8), ((16, 4, 4, 300), 48)],
    ids=str,
)
def test_numbers_are_tensorflows(assert_near, images_of, make_layer, step, shape, squeezed):
    layer, images = make_layer(shape[-1], squeezed), images_of(shape)
    assert_near(NAMES, step(layer, images, True), step(layer, images, False), 2e-5)


@settings(max_examples=25)
@given(
    batch=st.integers(1, 5),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    channels=st.integers(1, 80),
    squeezed=st.integers(1, 40),
)
def test_any_shape(
    assert_near, images_of, make_layer, step, batch, height, width, channels, squeezed
):
    layer, images = make_layer(channels, squeezed), images_of((batch, height, width, channels))
    assert_near(NAMES, step(layer, images, True), step(layer, images, False), 2e-4)


def test_many_pixels_cost_no_accuracy(images_of, make_layer, step):
    """One sum of all, row by row, would be off by some 1e-5."""
    layer, images = make_layer(1, 1), images_of((1, 300, 300, 1)) + 100
    layer.set_weights([np.ones(w.shape, "float32") for w in layer.weights])
    gate = step(layer, images, True)[0] / images
    np.testing.assert_allclose(gate, 1 / (1 + np.exp(-1 - (images.mean(dtype="f8") + 1))), 1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_does_not_vanish(images_of, make_layer, step, value):
    """Training that diverges must be noticed, in the image where it does."""
    images = images_of((2, 4, 4, 8))
    images[1, 2, 3, 5] = value
    y, dx, *weights = step(make_layer(8, 2), images, True)
    assert np.isnan(y[1]).any() and np.isnan(dx[1]).any()
    assert np.isfinite(y[0]).all() and np.isfinite(dx[0]).all()
    assert not any(np.isfinite(gradient).all() for gradient in weights)


def test_no_images(make_layer, step):
    found = step(make_layer(8, 2), np.zeros((0, 4, 4, 8), "float32"), True)
    assert found[0].shape == found[1].shape == (0, 4, 4, 8)
    for gradient in found[2:]:
        np.testing.assert_array_equal(gradient, 0)


def test_a_run_is_the_same_again(images_of, make_layer, step):
    layer, images = make_layer(32, 8), images_of((8, 32, 32, 32))
    for a, b in zip(step(layer, images, True), step(layer, images, True), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("training", "options", "uses"),
    [
        (True, {}, True),
        (True, {"activation": "swish"}, True),
        (False, {}, False),  # an exported network must run without the library
        (None, {}, False),
        (True, {"activation": "relu"}, False),
        (True, {"dtype": "mixed_bfloat16"}, False),
    ],
    ids=str,
)
def test_where_it_is_used(make_layer, operations_of, training, options, uses):
    layer = make_layer(8, 2, **options)
    function = tf.function(lambda x: layer(x, training=training))
    types = operations_of(function, tf.TensorSpec((2, 4, 4, 8)))
    assert ("Effnetv2SqueezeExcite" in types) == uses
