"""Crops, resizing and flips: from an encoded or decoded image to a square of a given size.

Images are uint8 in and uint8 out; resized values are rounded, not truncated. `image_size` is a
Python int or an int32 scalar tensor, in pixels. Random functions are pure functions of `seed`,
an int32 or int64 tensor of shape (2,). The orientation tag of JPEG files is ignored.
Source: random resized crops as in Inception training (arXiv 1409.4842, section 6), evaluation
crop as in the EfficientNet reference code.
"""

from __future__ import annotations

import math

import tensorflow as tf

from effnetv2_tf.data.augment._common import (
    require_image,
    require_integer,
    round_to_uint8,
    uniform,
)

Range = tuple[float, float]
Window = tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]

AREA_RANGE: Range = (0.08, 1.0)
ASPECT_RATIO_RANGE: Range = (3 / 4, 4 / 3)
INTERPOLATIONS = ("bilinear", "bicubic")

_CROP_SALT = 0x1D8E4F
_PAD_SALT = 0x6B20C3
_FLIP_SALT = 0x2F97A9


def sample_crop_window(
    image_height: int | tf.Tensor,
    image_width: int | tf.Tensor,
    seed: tf.Tensor,
    area_range: Range = AREA_RANGE,
    aspect_ratio_range: Range = ASPECT_RATIO_RANGE,
    attempts: int = 10,
) -> Window:
    """Draws a window for a random resized crop.

    Each attempt draws the share of the area uniformly and the aspect ratio (width / height)
    log-uniformly, so that a ratio and its inverse are equally likely. The first window that
    fits is placed uniformly; if none fits, it is the largest central window whose aspect ratio
    is in range.

    Args:
      image_height: In pixels, int or int32 scalar.
      image_width: In pixels, int or int32 scalar.
      seed: Tensor of shape (2,).
      area_range: Smallest and largest share of the image area, above 0 and at most 1.
      aspect_ratio_range: Smallest and largest width / height, above 0.
      attempts: How many windows are tried, >= 1.

    Returns:
      (y, x, height, width), int32 scalars; the window has at least one pixel and lies inside
      the image.

    Raises:
      ValueError: A range or `attempts` is invalid; the message names it.
    """
    _require_range("area_range", area_range, high=1.0)
    _require_range("aspect_ratio_range", aspect_ratio_range, high=math.inf)
    require_integer("sample_crop_window", "attempts", attempts, low=1)
    # Heights and widths together: on one image, the number of operations is what costs time.
    image_size = tf.stack([tf.cast(image_height, tf.int32), tf.cast(image_width, tf.int32)])
    draws = uniform([2 * attempts + 2], seed, _CROP_SALT)
    area_draws, ratio_draws, place_draws = tf.split(draws, [attempts, attempts, 2])
    sizes = _draw_sizes(image_size, area_draws, ratio_draws, area_range, aspect_ratio_range)
    fits = tf.reduce_all(sizes <= image_size, axis=1)
    first = tf.argmax(fits, output_type=tf.int32)
    any_fits = fits[first]
    size = tf.where(any_fits, sizes[first], _largest_central_size(image_size, aspect_ratio_range))
    margins = image_size - size
    offset = tf.where(any_fits, _scale_draw(place_draws, margins + 1), margins // 2)
    y, x = tf.unstack(offset)
    height, width = tf.unstack(size)
    return y, x, height, width


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
        return _random_window(
            _decode_whole(encoded, channels), seed, area_range, aspect_ratio_range
        )

    cropped = tf.cond(tf.io.is_jpeg(encoded), from_jpeg, from_other)
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
    y, x = tf.unstack(_scale_draw(uniform([2], seed, _PAD_SALT), 2 * padding + 1))
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
            image = _crop(image, _evaluation_window(shape[0], shape[1], image_size, crop_padding))
        return _resize(image, image_size, interpolation, antialias)
    _require_channels(channels)
    if resize_only:
        decoded = _decode_whole(image, channels)
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
    is_flipped = uniform([], seed, _FLIP_SALT) < 0.5
    return tf.cond(is_flipped, lambda: tf.reverse(image, [1]), lambda: image)


def _draw_sizes(
    image_size: tf.Tensor,
    area_draws: tf.Tensor,
    ratio_draws: tf.Tensor,
    area_range: Range,
    aspect_ratio_range: Range,
) -> tf.Tensor:
    """Returns int32 [draws, 2], heights and widths, not yet checked against the image."""
    smallest, largest = area_range
    areas = smallest + area_draws * (largest - smallest)
    areas *= tf.cast(tf.reduce_prod(image_size), tf.float32)
    log_low, log_high = (math.log(ratio) for ratio in aspect_ratio_range)
    ratios = tf.exp(log_low + ratio_draws * (log_high - log_low))
    squares = tf.stack([areas / ratios, areas * ratios], axis=1)
    return tf.maximum(tf.cast(tf.round(tf.sqrt(squares)), tf.int32), 1)


def _largest_central_size(image_size: tf.Tensor, aspect_ratio_range: Range) -> tf.Tensor:
    """Returns int32 [2], height and width of the largest window with a ratio in range."""
    lowest_ratio, highest_ratio = aspect_ratio_range
    sides = tf.cast(image_size, tf.float32)
    bounds = sides[::-1] * tf.constant([1.0 / lowest_ratio, highest_ratio])
    return tf.maximum(tf.cast(tf.round(tf.minimum(sides, bounds)), tf.int32), 1)


def _evaluation_window(
    image_height: tf.Tensor,
    image_width: tf.Tensor,
    image_size: int | tf.Tensor,
    crop_padding: int,
) -> Window:
    shorter_side = tf.minimum(image_height, image_width)
    side = tf.maximum(image_size * shorter_side // (image_size + crop_padding), 1)
    return (image_height - side + 1) // 2, (image_width - side + 1) // 2, side, side


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


def _decode_whole(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    image = tf.io.decode_image(encoded, channels=channels, expand_animations=False)
    image.set_shape([None, None, channels])
    return image


def _decode_window(encoded: tf.Tensor, window: Window, channels: int, ratio: int) -> tf.Tensor:
    """Decodes `window` of a JPEG; its numbers count pixels of the image shrunk by `ratio`."""
    return tf.image.decode_and_crop_jpeg(encoded, tf.stack(window), channels=channels, ratio=ratio)


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
        window = _evaluation_window(height, width, image_size, crop_padding)
        return _decode_window(encoded, window, channels, ratio=1)

    def from_other() -> tf.Tensor:
        image = _decode_whole(encoded, channels)
        shape = tf.shape(image)
        return _crop(image, _evaluation_window(shape[0], shape[1], image_size, crop_padding))

    cropped = tf.cond(tf.io.is_jpeg(encoded), from_jpeg, from_other)
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
        tf.image.resize(image, size, method=interpolation, antialias=antialias)
    )
    static_size = tf.get_static_value(tf.convert_to_tensor(image_size))
    resized.set_shape([static_size, static_size, image.shape[-1]])
    return resized


def _scale_draw(draw: tf.Tensor, count: int | tf.Tensor) -> tf.Tensor:
    """Maps draws from [0, 1) to the integers 0 to count - 1."""
    return tf.cast(draw * tf.cast(count, tf.float32), tf.int32)


def _require_range(name: str, bounds: Range, high: float) -> None:
    is_pair = isinstance(bounds, (tuple, list)) and len(bounds) == 2
    if not is_pair or not 0.0 < bounds[0] <= bounds[1] <= high or math.isinf(bounds[1]):
        limit = "" if math.isinf(high) else f" <= {high}"
        raise ValueError(
            f"{name} must be two finite numbers with 0 < smallest <= largest{limit}, "
            f"received {bounds!r}"
        )


def _require_channels(channels: int) -> None:
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, received {channels!r}")
