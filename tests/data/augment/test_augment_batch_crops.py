"""Crops of whole batches: the pixels of cropping one image after the other."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from effnetv2_tf.data.augment import pad_and_random_crop, random_crop_and_resize, random_flip
from effnetv2_tf.data.augment.batch_crops import pad_and_random_crops, random_crops_and_resize
from effnetv2_tf.data.augment.crop_windows import draw_flip, draw_shift, draw_window

COUNT = 12
SEEDS = [tf.constant([5, number], tf.int64) for number in range(COUNT)]


def _images(height: int, width: int, channels: int) -> np.ndarray:
    shape = (COUNT, height, width, channels)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _assert_equal_but_for_rounding(ours: tf.Tensor, theirs: list[tf.Tensor]) -> None:
    assert ours.dtype == tf.uint8
    differences = np.abs(ours.numpy().astype(int) - np.stack(theirs))
    assert differences.max() <= 1
    assert (differences > 0).mean() < 0.1  # values halfway between two grey levels


@settings(max_examples=25)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.sampled_from([1, 3]),
    image_size=st.integers(1, 48),
    smallest=st.floats(0.01, 1.0),
)
def test_windows_and_flips_are_those_of_single_images(
    height, width, channels, image_size, smallest
) -> None:
    images, ranges = _images(height, width, channels), ((smallest, 1.0), (0.5, 2.0))
    draws = tf.stack([draw_window(seed) for seed in SEEDS])
    flips = tf.stack([draw_flip(seed) for seed in SEEDS])
    ours = random_crops_and_resize(tf.constant(images), image_size, draws, *ranges, flips)
    singly = [
        random_flip(random_crop_and_resize(image, image_size, seed, *ranges), seed)
        for image, seed in zip(images, SEEDS, strict=True)
    ]
    _assert_equal_but_for_rounding(ours, singly)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("image_size", "padding"), [(20, 4), (32, 1), (28, 40)])
def test_shifts_are_those_of_single_images(image_size: int, padding: int, channels: int) -> None:
    """With a padding above the size, too: some results are all black then."""
    images = _images(28, 24, channels)
    shifts = tf.stack([draw_shift(seed, padding) for seed in SEEDS])
    ours = pad_and_random_crops(tf.constant(images), image_size, padding, shifts)
    singly = [
        pad_and_random_crop(image, image_size, padding, seed)
        for image, seed in zip(images, SEEDS, strict=True)
    ]
    _assert_equal_but_for_rounding(ours, singly)


def test_the_whole_image_at_its_size_stays_as_it_is() -> None:
    images = _images(16, 16, 3)
    draws = tf.stack([draw_window(seed) for seed in SEEDS])
    ours = random_crops_and_resize(tf.constant(images), 16, draws, (1.0, 1.0), (1.0, 1.0))
    np.testing.assert_array_equal(ours, images)
