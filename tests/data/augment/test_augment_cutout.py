"""Cutout alone."""

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.data.augment import Cutout


def filled(size, seed, cutout=Cutout()):  # noqa: B008 - frozen
    image = tf.zeros((size, size, 3), tf.uint8)
    return cutout(image, tf.constant([0, seed], tf.int64)).numpy()[..., 0] == 128


def test_fills_one_square_clipped_at_the_border():
    for seed in range(20):
        rows, columns = np.nonzero(filled(224, seed))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert len(rows) == height * width, f"seed {seed}: the filled pixels are no rectangle"
        assert 40 <= height <= 80 and 40 <= width <= 80, (height, width)


def test_shrinks_with_small_images():
    sides = [np.ptp(np.nonzero(filled(56, seed))[0]) + 1 for seed in range(20)]
    assert max(sides) == 20, "half-size 40 px at 224 px is 10 px at 56 px"


def test_is_a_function_of_the_seed():
    assert np.array_equal(filled(64, 3), filled(64, 3))
    assert not np.array_equal(filled(64, 3), filled(64, 4))


def test_refuses_an_empty_square():
    with pytest.raises(ValueError, match="half_size must be an integer >= 1, received 0"):
        Cutout(half_size=0)
