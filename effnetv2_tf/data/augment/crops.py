"""Crops, resizing and flips: from an encoded or decoded image to a square of a given size.

Images are uint8 in and uint8 out; resized values are rounded, not truncated. `image_size` is a
Python int or an int32 scalar tensor, in pixels. Random functions are pure functions of `seed`,
an int32 or int64 tensor of shape (2,). The orientation tag of JPEG files is ignored.
Source: random resized crops as in Inception training (arXiv 1409.4842, section 6), evaluation
crop as in the EfficientNet reference code.
"""

from __future__ import annotations

import tensorflow as tf

from effnetv2_tf.data.augment._common import require_image, require_integer, round_to_uint8
from effnetv2_tf.data.augment.crop_windows import (
    AREA_RANGE,
    ASPECT_RATIO_RANGE,
    Range,
    Window,
    draw_flip,
    draw_shift,
    evaluation_window,
    sample_crop_window,
)
from effnetv2_tf.data.encoded import decode_other, decode_pixels, is_jpeg_for

INTERPOLATIONS = ("bilinear", "bicubic")


def decode_and_random_crop(
    encoded: tf.Tensor,
    image_size: int | tf.Tensor,
    channels: int,
    seed: tf.Tensor,
    area_range: Range = AREA_RANGE,
    aspect_ratio_range: Range = ASPECT_RATIO_RANGE,
    interpolation: str = "bilinear",
    antialias: bool = False,
    fast_dct_scaling: bool = False,
) -> tf.Tensor:
    """Decodes a random window of an image file and resizes it to a square.

    Of a JPEG only the window is decoded. Other formats (PNG, BMP, GIF's first frame, which
    needs 3 channels) are decoded whole.

    Args:
      encoded: String scalar, the bytes of the file.
      image_size: Side of the result in pixels.
      channels: 1 or 3.
      seed: Tensor of shape (2,).
      area_range: As for `sample_crop_window`.
      aspect_ratio_range: As for `sample_crop_window`.
      interpolation: "bilinear" or "bicubic".
      antialias: Whether to filter when shrinking (the reference does not).
      fast_dct_scaling: Lets libjpeg decode at 1/2, 1/4 or 1/8 when the window's shorter side
        is at least that many times `image_size`. Faster, and smooths like an antialias filter.

    Returns:
      uint8 [image_size, image_size, channels].

    Raises:
      ValueError: An argument is invalid; the message names it.
      tf.errors.InvalidArgumentError: At run time, the bytes are no image that can be decoded.
    """
    _require_channels(channels)

    def from_jpeg() -> tf.Tensor:
        height, width = tf.unstack(tf.io.extract_jpeg_shape(encoded)[:2])
        window = sample_crop_window(height, width, seed, area_range, aspect_ratio_range)
        if fast_dct_scaling:
            return _decode_window_scaled(encoded, window, channels, image_size)
        return _decode_window(encoded, window, channels, ratio=1)

    def from_other() -> tf.Tensor:
        return _random_window(decode_other(encoded, channels), seed, area_range, aspect_ratio_range)

    cropped = tf.cond(is_jpeg_for(encoded, channels), from_jpeg, from_other)
    cropped.set_shape([None, None, channels])
    return _resize(cropped, image_size, interpolation, antialias)


def random_crop_and_resize(
    image: tf.Tensor,
    image_size: int | tf.Tensor,
    seed: tf.Tensor,
    area_range: Range = AREA_RANGE,
    aspect_ratio_range: Range = ASPECT_RATIO_RANGE,
    interpolation: str = "bilinear",
    antialias: bool = False,
) -> tf.Tensor:
    """Crops a random window of a decoded image and resizes it to a square.

    Arguments and result as for `decode_and_random_crop`, but for `image`: uint8 [H, W, C].
    The same seed draws the same window.
    """
    image = require_image(image)
    cropped = _random_window(image, seed, area_range, aspect_ratio_range)
    return _resize(cropped, image_size, interpolation, antialias)


def pad_and_random_crop(
    image: tf.Tensor,
    image_size: int | tf.Tensor,
    padding: int,
    seed: tf.Tensor,
    fill: int = 0,
    interpolation: str = "bilinear",
    antialias: bool = False,
) -> tf.Tensor:
    """Shifts a small image at random: resize to a square, pad all around, crop the square.

    Args:
      image: uint8 [H, W, C].
      image_size: Side of the result in pixels.
      padding: Pixels added on every side, and thus the largest shift.
      seed: Tensor of shape (2,).
      fill: Grey level of the padding, 0 to 255.
      interpolation: "bilinear" or "bicubic".
      antialias: Whether to filter when shrinking.

    Returns:
      uint8 [image_size, image_size, C].

    Raises:
      ValueError: An argument is invalid; the message names it.
    """
    require_integer("pad_and_random_crop", "padding", padding)
    require_integer("pad_and_random_crop", "fill", fill, high=255)
    resized = _resize(require_image(image), image_size, interpolation, antialias)
    padded = tf.pad(
        resized,
        [[padding, padding], [padding, padding], [0, 0]],
        constant_values=tf.constant(fill, tf.uint8),
    )
    y, x = tf.unstack(draw_shift(seed, padding))
    cropped = tf.slice(padded, tf.stack([y, x, 0]), tf.shape(resized))
    cropped.set_shape(resized.shape)
    return cropped


def center_crop_and_resize(
    image_or_encoded: tf.Tensor,
    image_size: int | tf.Tensor,
    crop_padding: int = 32,
    interpolation: str = "bicubic",
    antialias: bool = False,
    resize_only: bool = False,
    channels: int = 3,
) -> tf.Tensor:
    """Crops the central square and resizes it: preprocessing for evaluation.

    The side of the crop is image_size / (image_size + crop_padding) of the image's shorter
    side, as in the EfficientNet reference code.

    Args:
      image_or_encoded: uint8 [H, W, C], or a string scalar, the bytes of an image file.
      image_size: Side of the result in pixels.
      crop_padding: In pixels at `image_size`; 0 takes the largest central square.
      interpolation: "bilinear" or "bicubic".
      antialias: Whether to filter when shrinking.
      resize_only: Squashes the whole image into the square instead of cropping: for small
        images, whose borders matter.
      channels: 1 or 3, of the result when `image_or_encoded` is encoded; unused otherwise.

    Returns:
      uint8 [image_size, image_size, C].

    Raises:
      ValueError: An argument is invalid; the message names it.
      tf.errors.InvalidArgumentError: At run time, the bytes are no image that can be decoded.
    """
    require_integer("center_crop_and_resize", "crop_padding", crop_padding)
    image = tf.convert_to_tensor(image_or_encoded, name="image_or_encoded")
    if image.dtype != tf.string:
        image = require_image(image)
        if not resize_only:
            shape = tf.shape(image)
            image = _crop(image, evaluation_window(shape[0], shape[1], image_size, crop_padding))
        return _resize(image, image_size, interpolation, antialias)
    _require_channels(channels)
    if resize_only:
        decoded = decode_pixels(image, channels)
    else:
        decoded = _decode_center(image, channels, image_size, crop_padding)
    return _resize(decoded, image_size, interpolation, antialias)


def random_flip(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Mirrors the image left to right with probability one half.

    Args:
      image: uint8 [H, W, C].
      seed: Tensor of shape (2,).
    """
    image = require_image(image)
    return tf.cond(draw_flip(seed), lambda: tf.reverse(image, [1]), lambda: image)


def _random_window(
    image: tf.Tensor, seed: tf.Tensor, area_range: Range, aspect_ratio_range: Range
) -> tf.Tensor:
    shape = tf.shape(image)
    return _crop(
        image, sample_crop_window(shape[0], shape[1], seed, area_range, aspect_ratio_range)
    )


def _crop(image: tf.Tensor, window: Window) -> tf.Tensor:
    y, x, height, width = window
    cropped = tf.slice(image, tf.stack([y, x, 0]), tf.stack([height, width, -1]))
    cropped.set_shape([None, None, image.shape[-1]])
    return cropped


def _decode_window(encoded: tf.Tensor, window: Window, channels: int, ratio: int) -> tf.Tensor:
    """Decodes `window` of a JPEG; its numbers count pixels of the image shrunk by `ratio`."""
    return tf.image.decode_and_crop_jpeg(
        encoded,
        tf.stack(window),
        channels=channels,
        ratio=ratio,
        dct_method="INTEGER_ACCURATE",  # as `decode_pixels`
    )


def _decode_window_scaled(
    encoded: tf.Tensor, window: Window, channels: int, image_size: int | tf.Tensor
) -> tf.Tensor:
    y, x, height, width = window
    enlargement = tf.minimum(height, width) // image_size

    def at_ratio(ratio: int) -> tf.Tensor:
        scaled = (y // ratio, x // ratio, height // ratio, width // ratio)
        return _decode_window(encoded, scaled, channels, ratio)

    exponent = tf.reduce_sum(tf.cast(enlargement >= tf.constant([2, 4, 8]), tf.int32))
    return tf.switch_case(exponent, [lambda ratio=r: at_ratio(ratio) for r in (1, 2, 4, 8)])


def _decode_center(
    encoded: tf.Tensor, channels: int, image_size: int | tf.Tensor, crop_padding: int
) -> tf.Tensor:
    def from_jpeg() -> tf.Tensor:
        height, width = tf.unstack(tf.io.extract_jpeg_shape(encoded)[:2])
        window = evaluation_window(height, width, image_size, crop_padding)
        return _decode_window(encoded, window, channels, ratio=1)

    def from_other() -> tf.Tensor:
        image = decode_other(encoded, channels)
        shape = tf.shape(image)
        return _crop(image, evaluation_window(shape[0], shape[1], image_size, crop_padding))

    cropped = tf.cond(is_jpeg_for(encoded, channels), from_jpeg, from_other)
    cropped.set_shape([None, None, channels])
    return cropped


def _resize(
    image: tf.Tensor, image_size: int | tf.Tensor, interpolation: str, antialias: bool
) -> tf.Tensor:
    if interpolation not in INTERPOLATIONS:
        raise ValueError(
            f"interpolation must be one of {', '.join(INTERPOLATIONS)}, received {interpolation!r}"
        )
    if not tf.is_tensor(image_size):
        require_integer("resize", "image_size", image_size, low=1)
    size = [image_size, image_size]
    resized = round_to_uint8(
        tf.image.resize(image, size, method=interpolation, antialias=antialias),
        overshoots=interpolation == "bicubic",
    )
    static_size = tf.get_static_value(tf.convert_to_tensor(image_size))
    resized.set_shape([static_size, static_size, image.shape[-1]])
    return resized


def _require_channels(channels: int) -> None:
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, received {channels!r}")
