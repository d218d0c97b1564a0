"""Where crops lie: windows and shifts drawn at random, and the window of evaluation.

Random functions are pure functions of `seed`, an int32 or int64 tensor of shape (2,).
Source: random resized crops as in Inception training (arXiv 1409.4842, section 6), evaluation
crop as in the EfficientNet reference code.
"""

from __future__ import annotations

import math

import tensorflow as tf

from effnetv2_tf.data.augment._common import require_integer, uniform

Range = tuple[float, float]
Window = tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]

AREA_RANGE: Range = (0.08, 1.0)
ASPECT_RATIO_RANGE: Range = (3 / 4, 4 / 3)
ATTEMPTS = 10

_CROP_SALT = 0x1D8E4F
_PAD_SALT = 0x6B20C3
_FLIP_SALT = 0x2F97A9


def sample_crop_window(
    image_height: int | tf.Tensor,
    image_width: int | tf.Tensor,
    seed: tf.Tensor,
    area_range: Range = AREA_RANGE,
    aspect_ratio_range: Range = ASPECT_RATIO_RANGE,
    attempts: int = ATTEMPTS,
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
    return place_window(image_size, draw_window(seed, attempts), area_range, aspect_ratio_range)


def draw_window(seed: tf.Tensor, attempts: int = ATTEMPTS) -> tf.Tensor:
    """What `place_window` decides by: float32 [2 * attempts + 2] in [0, 1)."""
    return uniform([2 * attempts + 2], seed, _CROP_SALT)


def place_window(
    image_size: tf.Tensor, draws: tf.Tensor, area_range: Range, aspect_ratio_range: Range
) -> Window:
    """The window of `sample_crop_window`, or those of many images of one size.

    Args:
      image_size: int32 [2], height and width in pixels.
      draws: of `draw_window`, [draws] or [images, draws].
      area_range: As for `sample_crop_window`.
      aspect_ratio_range: As for `sample_crop_window`.

    Returns:
      (y, x, height, width), int32 scalars or [images].
    """
    attempts = draws.shape[-1] // 2 - 1
    area_draws, ratio_draws, place_draws = tf.split(draws, [attempts, attempts, 2], axis=-1)
    sizes = _draw_sizes(image_size, area_draws, ratio_draws, area_range, aspect_ratio_range)
    fits = tf.reduce_all(sizes <= image_size, axis=-1)
    first = tf.argmax(fits, axis=-1, output_type=tf.int32)
    any_fits = tf.reduce_any(fits, axis=-1, keepdims=True)
    drawn = tf.gather(sizes, first, axis=-2, batch_dims=draws.shape.rank - 1)
    size = tf.where(any_fits, drawn, _largest_central_size(image_size, aspect_ratio_range))
    margins = image_size - size
    offset = tf.where(any_fits, _scale_draw(place_draws, margins + 1), margins // 2)
    y, x = tf.unstack(offset, axis=-1)
    height, width = tf.unstack(size, axis=-1)
    return y, x, height, width


def draw_shift(seed: tf.Tensor, padding: int) -> tf.Tensor:
    """Where a padded image is cropped: int32 [2], y and x from 0 to 2 * `padding`."""
    return _scale_draw(uniform([2], seed, _PAD_SALT), 2 * padding + 1)


def draw_flip(seed: tf.Tensor) -> tf.Tensor:
    """Whether an image is mirrored: bool scalar, true with probability one half."""
    return uniform([], seed, _FLIP_SALT) < 0.5


def _draw_sizes(
    image_size: tf.Tensor,
    area_draws: tf.Tensor,
    ratio_draws: tf.Tensor,
    area_range: Range,
    aspect_ratio_range: Range,
) -> tf.Tensor:
    """Returns int32 [..., draws, 2], heights and widths, not yet checked against the image."""
    smallest, largest = area_range
    areas = smallest + area_draws * (largest - smallest)
    areas *= tf.cast(tf.reduce_prod(image_size), tf.float32)
    log_low, log_high = (math.log(ratio) for ratio in aspect_ratio_range)
    ratios = tf.exp(log_low + ratio_draws * (log_high - log_low))
    squares = tf.stack([areas / ratios, areas * ratios], axis=-1)
    return tf.maximum(tf.cast(tf.round(tf.sqrt(squares)), tf.int32), 1)


def _largest_central_size(image_size: tf.Tensor, aspect_ratio_range: Range) -> tf.Tensor:
    """Returns int32 [2], height and width of the largest window with a ratio in range."""
    lowest_ratio, highest_ratio = aspect_ratio_range
    sides = tf.cast(image_size, tf.float32)
    bounds = sides[::-1] * tf.constant([1.0 / lowest_ratio, highest_ratio])
    return tf.maximum(tf.cast(tf.round(tf.minimum(sides, bounds)), tf.int32), 1)


def evaluation_window(
    image_height: tf.Tensor,
    image_width: tf.Tensor,
    image_size: int | tf.Tensor,
    crop_padding: int,
) -> Window:
    """The central square that `center_crop_and_resize` shows, see there."""
    shorter_side = tf.minimum(image_height, image_width)
    side = tf.maximum(image_size * shorter_side // (image_size + crop_padding), 1)
    return (image_height - side + 1) // 2, (image_width - side + 1) // 2, side, side


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
