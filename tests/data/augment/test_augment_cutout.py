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
        assert 56 <= height <= 112 and 56 <= width <= 112, (height, width)


@pytest.mark.parametrize(
    ("size", "share", "side"), [(56, 0.25, 28), (384, 0.25, 192), (40, 0.1, 8)]
)
def test_goes_with_the_size_of_the_image(size, share, side):
    cutout = Cutout(share)
    assert max(np.ptp(np.nonzero(filled(size, seed, cutout))[0]) + 1 for seed in range(20)) == side


def test_is_a_function_of_the_seed():
    assert np.array_equal(filled(64, 3), filled(64, 3))
    assert not np.array_equal(filled(64, 3), filled(64, 4))


def test_refuses_a_share_that_is_none():
    with pytest.raises(ValueError, match=r"half_share must be .* between 0.0 and 1.0, received 40"):
        Cutout(half_share=40)
