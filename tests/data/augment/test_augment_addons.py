"""tensorflow-addons' operations as the reference of ours."""

import math

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_sample_images

from effnetv2_tf.data.augment import ops
from effnetv2_tf.models.layers import StochasticDepth

addons = pytest.importorskip(
    "tensorflow_addons", reason="tensorflow-addons needs TensorFlow 2.15", exc_type=ImportError
)


@pytest.fixture(scope="module")
def photograph():
    return tf.constant(load_sample_images().images[0][100:261, 200:401])


@pytest.mark.parametrize("degrees", [5.0, 30.0, 90.0, -17.5])
def test_rotate(photograph, degrees):
    wanted = addons.image.rotate(
        photograph,
        math.radians(degrees),
        interpolation="nearest",
        fill_mode="constant",
        fill_value=128.0,
    )
    differing = np.mean(np.any(ops.rotate(photograph, degrees) != wanted, axis=-1))
    # Addons' positions are of half the precision, which moves a few of the nearest pixels.
    assert differing < 0.005, f"{differing:.2%} of the pixels differ"


@pytest.mark.parametrize("level", [0.1, 0.3, -0.2])
@pytest.mark.parametrize("name", ["shear_x", "shear_y"])
def test_shear(photograph, name, level):
    wanted = getattr(addons.image, name)(photograph, level, 128)
    np.testing.assert_array_equal(getattr(ops, name)(photograph, level), wanted)


@pytest.mark.parametrize("pixels", [10, -7])
@pytest.mark.parametrize(("name", "axis"), [("translate_x", 0), ("translate_y", 1)])
def test_translate(photograph, name, axis, pixels):
    offset = [0, 0]
    offset[axis] = -pixels
    wanted = addons.image.translate(photograph, offset, fill_value=128.0)
    np.testing.assert_array_equal(getattr(ops, name)(photograph, pixels), wanted)


def test_equalize(photograph):
    np.testing.assert_array_equal(ops.equalize(photograph), addons.image.equalize(photograph))


@pytest.mark.parametrize("factor", [0.1, 0.5, 1.0, 1.9])
def test_sharpness(photograph, factor):
    ours = tf.cast(ops.sharpness(photograph, factor), tf.int32)
    wanted = tf.cast(addons.image.sharpness(photograph, factor), tf.int32)
    # Addons cuts fractions off, of the smoothed image and of the blend; here they are rounded.
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=2)


@pytest.mark.parametrize("center", [(80, 100), (3, 199)])
def test_cutout(photograph, center):
    wanted = addons.image.cutout(photograph[tf.newaxis], 40, center, constant_values=128)[0]
    np.testing.assert_array_equal(ops.cutout(photograph, *center, 20), wanted)


def test_stochastic_depth():
    """Addons drops a batch's branch as a whole and scales at inference, ours in training."""
    shortcut, branch = tf.zeros([4000, 1, 1, 2]), tf.ones([4000, 1, 1, 2])
    ours, theirs = StochasticDepth(0.3), addons.layers.StochasticDepth(0.7)
    at_inference = theirs([shortcut, branch], training=False)
    np.testing.assert_allclose(0.7 * ours(branch, training=False), at_inference, rtol=1e-6)
    dropped = ours(branch, training=True).numpy()
    np.testing.assert_allclose(0.7 * dropped.mean(), at_inference.numpy().mean(), atol=0.03)
    one = branch[:1]
    kept = [float(theirs([0 * one, one], training=True)[0, 0, 0, 0]) for _ in range(400)]
    assert np.mean(kept) == pytest.approx(np.mean(dropped > 0), abs=0.08)
