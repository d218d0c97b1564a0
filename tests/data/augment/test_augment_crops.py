"""Crops, resizing and flips: windows, values against Pillow and by hand, files of all formats."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_images

from effnetv2_tf.data.augment import (
    center_crop_and_resize,
    decode_and_random_crop,
    pad_and_random_crop,
    random_crop_and_resize,
    random_flip,
    sample_crop_window,
)
from effnetv2_tf.data.encoded import decode_pixels

PHOTO = np.ascontiguousarray(load_sample_images().images[0])  # 427 x 640
WHOLE = {"area_range": (1.0, 1.0), "aspect_ratio_range": (640 / 427, 640 / 427)}


def encode(image: np.ndarray, file_format: str) -> tf.Tensor:
    buffer = io.BytesIO()
    options = {"quality": 95, "subsampling": 0} if file_format == "JPEG" else {}
    pillow_image = Image.fromarray(image if image.shape[-1] == 3 else image[..., 0])
    pillow_image.save(buffer, file_format, **options)
    return tf.constant(buffer.getvalue())


def mean_difference(first, second) -> float:
    return float(np.abs(np.asarray(first, float) - np.asarray(second, float)).mean())


@settings(max_examples=60)
@given(
    height=st.integers(1, 600),
    width=st.integers(1, 600),
    seed=st.integers(-(2**31), 2**31 - 1),
    smallest=st.floats(0.001, 1.0),
    attempts=st.integers(1, 12),
)
def test_windows_lie_inside_the_image(height, width, seed, smallest, attempts) -> None:
    window = sample_crop_window(
        height, width, tf.constant([seed, 1]), (smallest, 1.0), attempts=attempts
    )
    assert all(number.dtype == tf.int32 and number.shape == () for number in window)
    y, x, h, w = (int(number) for number in window)
    assert y >= 0 and x >= 0 and h >= 1 and w >= 1
    assert y + h <= height and x + w <= width


def test_windows_have_the_stated_distribution() -> None:
    """In a large image with small areas nothing is rejected: area and log ratio are uniform."""
    windows = tf.data.Dataset.range(3000).map(
        lambda number: sample_crop_window(
            4000, 4000, tf.stack([number, 7 * number]), (0.1, 0.3), (0.5, 2.0)
        )
    )
    y, x, h, w = np.array(list(windows.as_numpy_iterator()), float).T
    area_share = (h * w / 4000**2 - 0.1) / 0.2
    log_ratio = np.log2(w / h) / 2 + 0.5
    place_y, place_x = y / (4000 - h), x / (4000 - w)
    draws = np.stack([area_share, log_ratio, place_y, place_x])
    assert draws.min() > -0.001 and draws.max() < 1.001
    np.testing.assert_allclose(draws.mean(1), 0.5, atol=0.02)
    np.testing.assert_allclose(draws.var(1), 1 / 12, atol=0.006)
    assert np.abs(np.corrcoef(draws) - np.eye(4)).max() < 0.06


def test_window_falls_back_to_the_largest_central_one() -> None:
    seed = tf.constant([1, 2])
    window = sample_crop_window(100, 1000, seed, (0.9, 1.0))
    assert [int(number) for number in window] == [0, (1000 - 133) // 2, 100, 133]
    window = sample_crop_window(1000, 90, seed, (0.9, 1.0))
    assert [int(number) for number in window] == [(1000 - 120) // 2, 0, 120, 90]
    window = sample_crop_window(100, 100, seed, (1.0, 1.0), (1.01, 1.02), attempts=1)
    assert [int(number) for number in window] == [0, 0, 99, 100]


def test_window_is_pure_in_eager_and_dataset() -> None:
    dataset = tf.data.Dataset.range(20).map(
        lambda number: sample_crop_window(300, 400, tf.stack([number, 0]))
    )
    windows = [tuple(int(v) for v in window) for window in dataset]
    for number, window in enumerate(windows):
        again = sample_crop_window(300, 400, tf.constant([number, 0], tf.int64))
        assert window == tuple(int(v) for v in again)
    assert len(set(windows)) == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"area_range": (0.0, 1.0)}, r"area_range must be two finite .* <= 1.0, .*\(0.0, 1.0\)"),
        ({"area_range": (0.5, 1.5)}, r"area_range must be two finite numbers"),
        ({"area_range": 0.5}, r"area_range must be two finite numbers .* received 0.5"),
        ({"aspect_ratio_range": (2.0, 1.0)}, r"aspect_ratio_range must be two finite numbers"),
        ({"attempts": 0}, r"attempts must be an integer >= 1, received 0"),
    ],
)
def test_bad_window_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_crop_window(10, 10, tf.constant([0, 0]), **arguments)


@pytest.mark.parametrize(
    ("file_format", "channels"), [("JPEG", 1), ("JPEG", 3), ("PNG", 1), ("PNG", 3), ("BMP", 3)]
)
def test_files_give_the_same_crop_as_decoded_images(file_format: str, channels: int) -> None:
    encoded = encode(PHOTO[..., :channels], file_format)
    decoded = decode_pixels(encoded, channels)  # as where the whole image is needed
    for number in range(3):
        seed = tf.constant([number, 9])
        result = decode_and_random_crop(encoded, 64, channels, seed)
        assert result.dtype == tf.uint8 and result.shape == (64, 64, channels)
        np.testing.assert_array_equal(result, random_crop_and_resize(decoded, 64, seed))


def test_channels_are_converted() -> None:
    seed = tf.constant([1, 1])
    grey = decode_and_random_crop(encode(PHOTO, "JPEG"), 32, 1, seed).numpy().astype(float)
    rgb = decode_and_random_crop(encode(PHOTO, "JPEG"), 32, 3, seed).numpy().astype(float)
    assert np.abs(grey[..., 0] - rgb @ [0.299, 0.587, 0.114]).mean() < 1.0
    from_grey = decode_and_random_crop(encode(PHOTO[..., :1], "PNG"), 32, 3, seed).numpy()
    assert (from_grey[..., 0] == from_grey[..., 2]).all()


@pytest.mark.parametrize("image_size", [20, 50, 100, 200, 300])
def test_dct_scaling_sees_the_same_window(image_size: int) -> None:
    """Sizes from an eighth of the window to no reduction; compared with antialiased resizing."""
    encoded = encode(PHOTO, "JPEG")
    for number in range(4):
        seed = tf.constant([number, 4])
        fast = decode_and_random_crop(encoded, image_size, 3, seed, fast_dct_scaling=True)
        exact = decode_and_random_crop(encoded, image_size, 3, seed, antialias=True)
        assert fast.shape == (image_size, image_size, 3)
        other = decode_and_random_crop(
            encoded, image_size, 3, tf.constant([number, 5]), antialias=True
        )
        assert mean_difference(fast, exact) < 0.4 * mean_difference(other, exact)


def test_dct_scaling_changes_only_windows_of_twice_the_size() -> None:
    encoded = encode(PHOTO, "JPEG")
    seed = tf.constant([0, 0])
    for image_size, is_same in ((213, False), (214, True)):
        fast = decode_and_random_crop(encoded, image_size, 3, seed, fast_dct_scaling=True, **WHOLE)
        exact = decode_and_random_crop(encoded, image_size, 3, seed, **WHOLE)
        assert bool(tf.reduce_all(fast == exact)) == is_same


def test_decoding_in_a_dataset_with_a_size_tensor() -> None:
    files = [encode(PHOTO, "JPEG"), encode(PHOTO, "PNG")]
    sizes = [24, 40]
    dataset = tf.data.Dataset.from_tensor_slices((files, sizes)).map(
        lambda file, size: decode_and_random_crop(file, size, 3, tf.constant([1, 2]))
    )
    assert dataset.element_spec.shape.as_list() == [None, None, 3]
    for file, size, result in zip(files, sizes, dataset, strict=True):
        np.testing.assert_array_equal(
            result, decode_and_random_crop(file, size, 3, tf.constant([1, 2]))
        )


def test_bytes_that_are_no_image_raise() -> None:
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_and_random_crop(tf.constant(b"no image"), 8, 3, tf.constant([1, 2]))


@pytest.mark.parametrize(
    ("interpolation", "pillow_filter"),
    [("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)],
)
@pytest.mark.parametrize(("image_size", "antialias"), [(700, False), (100, True)])
def test_resizing_agrees_with_pillow(interpolation, pillow_filter, image_size, antialias) -> None:
    """Pillow rounds after each axis, and its filters are always antialiased when shrinking.

    It clips after each axis too, hence an image whose overshoot stays between 0 and 255.
    """
    square = PHOTO[:420, :420] // 2 + 64
    result = center_crop_and_resize(
        square, image_size, interpolation=interpolation, antialias=antialias, resize_only=True
    )
    expected = np.asarray(Image.fromarray(square).resize((image_size, image_size), pillow_filter))
    difference = np.abs(result.numpy().astype(int) - expected)
    inside = difference[3:-3, 3:-3]  # at the border the bicubic kernels are cut differently
    assert inside.max() <= 2 and inside.mean() < 0.2


def test_resizing_rounds_and_clips() -> None:
    image = tf.constant([[0, 1], [2, 0]], tf.uint8)[..., tf.newaxis]
    result = center_crop_and_resize(image, 1, interpolation="bilinear", resize_only=True)
    assert int(result[0, 0, 0]) == 1  # 0.75, truncation would give 0
    edge = tf.constant([[0, 0, 255, 255]] * 4, tf.uint8)[..., tf.newaxis]
    result = center_crop_and_resize(edge, 16, interpolation="bicubic", resize_only=True).numpy()
    assert result[:, :4].max() < 40 and result[:, 12:].min() > 215  # overshoot did not wrap


def test_center_crop_takes_the_reference_window() -> None:
    """Side 224 / 256 of 427 = 373; offsets (427 - 373 + 1) // 2 and (640 - 373 + 1) // 2."""
    result = center_crop_and_resize(PHOTO, 224)
    window = PHOTO[27 : 27 + 373, 134 : 134 + 373]
    np.testing.assert_array_equal(result, center_crop_and_resize(window, 224, resize_only=True))
    result = center_crop_and_resize(PHOTO, 427, crop_padding=0)
    np.testing.assert_array_equal(result, PHOTO[:, 107 : 107 + 427])


@pytest.mark.parametrize("resize_only", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_evaluation_crop_of_files(resize_only: bool, channels: int) -> None:
    for file_format in ("PNG", "JPEG"):
        encoded = encode(PHOTO[..., :channels], file_format)
        result = center_crop_and_resize(encoded, 96, resize_only=resize_only, channels=channels)
        decoded = decode_pixels(encoded, channels)
        expected = center_crop_and_resize(decoded, 96, resize_only=resize_only)
        assert result.dtype == tf.uint8 and result.shape == (96, 96, channels)
        np.testing.assert_array_equal(result, expected)


def test_pad_and_random_crop_reaches_every_shift() -> None:
    image = tf.reshape(tf.range(64, dtype=tf.int32) + 100, [8, 8, 1])
    image = tf.cast(image, tf.uint8)
    padded = np.full((12, 12, 1), 7, np.uint8)
    padded[2:10, 2:10] = image.numpy()
    shifts = {padded[y : y + 8, x : x + 8].tobytes() for y in range(5) for x in range(5)}
    dataset = tf.data.Dataset.range(400).map(
        lambda number: pad_and_random_crop(image, 8, 2, tf.stack([number, 1]), fill=7)
    )
    results = [result.numpy().tobytes() for result in dataset]
    assert set(results) == shifts
    assert max(results.count(shift) for shift in shifts) < 32  # 16 expected of each of 25


def test_pad_and_random_crop_resizes_first() -> None:
    result = pad_and_random_crop(PHOTO, tf.constant(28), 0, tf.constant([0, 0]))
    expected = center_crop_and_resize(PHOTO, 28, interpolation="bilinear", resize_only=True)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_flip_mirrors_half_of_the_images(channels: int) -> None:
    image = PHOTO[:4, :5, :channels]
    dataset = tf.data.Dataset.range(400).map(
        lambda number: random_flip(tf.constant(image), tf.stack([number, 2]))
    )
    flipped = 0
    for number, result in enumerate(dataset):
        is_flipped = bool((result.numpy() == image[:, ::-1]).all())
        flipped += is_flipped
        assert is_flipped or (result.numpy() == image).all()
        if number < 20:
            again = random_flip(image, tf.constant([number, 2]))
            np.testing.assert_array_equal(result, again)
    assert 160 < flipped < 240


def test_one_seed_draws_crop_and_flip_independently() -> None:
    image = tf.reshape(tf.range(200, dtype=tf.int32), [1, 200, 1])
    image = tf.cast(image, tf.uint8)
    lefts, flips = [], []
    for number in range(300):
        seed = tf.constant([number, 0])
        lefts.append(int(sample_crop_window(200, 200, seed, (0.25, 0.25), (1.0, 1.0))[1]))
        flips.append(int(random_flip(image, seed)[0, 0, 0]) == 199)
    assert abs(np.corrcoef(lefts, flips)[0, 1]) < 0.17  # 3 standard deviations


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: random_crop_and_resize(PHOTO, 8, tf.constant([0, 0]), interpolation="cubic"),
            "interpolation must be one of bilinear, bicubic, received 'cubic'",
        ),
        (
            lambda: center_crop_and_resize(PHOTO, 0),
            "image_size must be an integer >= 1, received 0",
        ),
        (
            lambda: center_crop_and_resize(PHOTO, 8, crop_padding=-1),
            "crop_padding must be an integer >= 0, received -1",
        ),
        (
            lambda: decode_and_random_crop(tf.constant(b""), 8, 4, tf.constant([0, 0])),
            "channels must be 1 or 3, received 4",
        ),
        (
            lambda: pad_and_random_crop(PHOTO, 8, -2, tf.constant([0, 0])),
            "padding must be an integer >= 0, received -2",
        ),
        (
            lambda: random_flip(tf.zeros([2, 2, 3]), tf.constant([0, 0])),
            "image must be a uint8 tensor",
        ),
    ],
)
def test_bad_arguments_are_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
