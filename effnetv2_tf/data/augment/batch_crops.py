"""Crops of many small images of one size at once: resizing as two matrix products.

One image's crop takes a hundred small operations, whose handling costs more than their work where
the image is small. Here the same windows, shifts and flips are carried out for a whole batch. The
pixels are those of `random_crop_and_resize` or `pad_and_random_crop` and `random_flip`, bilinear,
but for rounding: a value between two grey levels may fall to the other one.
"""

from __future__ import annotations

import tensorflow as tf

from effnetv2_tf.data.augment._common import round_to_uint8
from effnetv2_tf.data.augment.crop_windows import Range, place_window


def random_crops_and_resize(
    images: tf.Tensor,
    image_size: int,
    draws: tf.Tensor,
    area_range: Range,
    aspect_ratio_range: Range,
    flips: tf.Tensor | None = None,
) -> tf.Tensor:
    """`random_crop_and_resize`, then `random_flip`, of each image.

    Args:
      images: uint8 [B, H, W, C].
      image_size: Side of the result in pixels.
      draws: float32 [B, draws], of `draw_window` for each image.
      area_range: As for `sample_crop_window`.
      aspect_ratio_range: As for `sample_crop_window`.
      flips: bool [B], of `draw_flip`; None mirrors no image.

    Returns:
      uint8 [B, image_size, image_size, C].
    """
    sides = tf.constant(images.shape.as_list()[1:3])
    y, x, height, width = place_window(sides, draws, area_range, aspect_ratio_range)
    rows = tf.range(image_size)[tf.newaxis]  # of the result, (1, size)
    columns = _mirrored(rows, image_size, flips)
    by_row = _weights(rows, y, height, image_size, images.shape[1])
    by_column = _weights(columns, x, width, image_size, images.shape[2])
    return _resize(images, by_row, by_column)


def pad_and_random_crops(
    images: tf.Tensor,
    image_size: int,
    padding: int,
    shifts: tf.Tensor,
    flips: tf.Tensor | None = None,
) -> tf.Tensor:
    """`pad_and_random_crop`, then `random_flip`, of each image.

    Args:
      images: uint8 [B, H, W, C].
      image_size: Side of the result in pixels.
      padding: Pixels added on every side, black.
      shifts: int32 [B, 2], of `draw_shift` for each image.
      flips: bool [B], of `draw_flip`; None mirrors no image.

    Returns:
      uint8 [B, image_size, image_size, C].
    """
    height, width = images.shape[1:3]
    y, x = tf.split(shifts - padding, 2, axis=1)  # (B, 1) each
    rows = tf.range(image_size)[tf.newaxis]
    columns = _mirrored(rows, image_size, flips)
    by_row = _weights(rows + y, [0], [height], image_size, height)
    by_column = _weights(columns + x, [0], [width], image_size, width)
    return _resize(images, by_row, by_column)


def _mirrored(columns: tf.Tensor, image_size: int, flips: tf.Tensor | None) -> tf.Tensor:
    """The column that is shown at each place: those of a mirrored image run backwards."""
    if flips is None:
        return columns
    return tf.where(flips[:, tf.newaxis], image_size - 1 - columns, columns)


def _weights(
    places: tf.Tensor, start: tf.Tensor, length: tf.Tensor, image_size: int, side: int
) -> tf.Tensor:
    """How much of each of an image's rows (columns) is in each of its result's.

    Args:
      places: int32 [B or 1, size], rows of the window resized to `image_size`; rows without the
        window are black.
      start: int32 [B or 1], the window's first row.
      length: int32 [B or 1], its height.
      image_size: to which the window is resized.
      side: of the image.

    Returns:
      float32 [B or 1, size, side]; a row's sum is 1, or 0 if it is black.
    """
    inside = (places >= 0) & (places < image_size)
    length = tf.cast(length, tf.float32)[:, tf.newaxis]
    # As tf.image.resize: pixels are areas, and the window's outermost ones reach to its edge.
    centres = (tf.cast(places, tf.float32) + 0.5) * (length / image_size) - 0.5
    centres = tf.clip_by_value(centres, 0.0, length - 1.0)
    centres += tf.cast(start, tf.float32)[:, tf.newaxis]
    distances = tf.abs(centres[..., tf.newaxis] - tf.range(side, dtype=tf.float32))
    return tf.nn.relu(1.0 - distances) * tf.cast(inside, tf.float32)[..., tf.newaxis]


def _resize(images: tf.Tensor, by_row: tf.Tensor, by_column: tf.Tensor) -> tf.Tensor:
    planes = tf.cast(tf.transpose(images, [0, 3, 1, 2]), tf.float32)  # (B, C, H, W)
    resized = tf.matmul(by_row[:, tf.newaxis], planes)  # (B, C, size, W)
    resized = tf.matmul(resized, by_column[:, tf.newaxis], transpose_b=True)
    return round_to_uint8(tf.transpose(resized, [0, 2, 3, 1]), overshoots=False)
