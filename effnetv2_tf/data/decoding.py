"""Encoded bytes to pixels, with bad records noticed rather than fatal."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from effnetv2_tf.data.encoded import decode_pixels
from effnetv2_tf.data.sources.bad_records import BadRecords
from effnetv2_tf.data.sources.validity import is_valid_image


def decode_image(
    encoded: tf.Tensor,
    name: tf.Tensor,
    channels: int,
    bad_records: BadRecords,
    decode: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes an image whose bytes look whole; otherwise counts it and returns a stand-in.

    Args:
      encoded: scalar string, the file's bytes.
      name: scalar string, for the report.
      channels: 1 or 3.
      bad_records: where a bad record is counted.
      decode: from bytes to uint8 (height, width, channels); `decode_pixels` by default.

    Returns:
      `(image, valid)`: uint8 (height, width, channels), one grey pixel if not valid; bool.
    """

    def count(record: bytes) -> np.bool_:
        bad_records.add_image(record.decode(errors="replace"))
        bad_records.check()
        return np.bool_(False)

    def stand_in() -> tuple[tf.Tensor, tf.Tensor]:
        valid = tf.numpy_function(count, [name], tf.bool, stateful=True)
        with tf.control_dependencies([valid]):
            return tf.constant(grey_pixel(channels)), tf.ensure_shape(valid, ())

    # One decoder for both, behind the branches: operations of the branch that is not taken cost
    # time, too, and a crop has a hundred of them.
    decodable = is_decodable(encoded, name, bad_records)
    data, valid = tf.cond(decodable, lambda: (encoded, tf.constant(True)), stand_in)
    image = decode(data) if decode else decode_pixels(data, channels)
    image.set_shape(
        (*image.shape[:2], channels) if image.shape.rank == 3 else (None, None, channels)
    )
    return image, valid


def is_decodable(encoded: tf.Tensor, name: tf.Tensor, bad_records: BadRecords) -> tf.Tensor:
    """Whether the bytes look whole and were not found broken before: a scalar bool.

    Args:
      encoded: scalar string, the file's bytes.
      name: scalar string, the record's.
      bad_records: which knows the images that are refused.
    """
    whole = is_valid_image(encoded)
    refused = bad_records.refused
    return whole & tf.reduce_all(name != tf.constant(refused)) if refused else whole


def grey_pixel(channels: int) -> bytes:
    """A PNG file of one grey pixel."""
    with tf.init_scope():  # eagerly, also while a tf.data function is traced
        return tf.io.encode_png(np.full((1, 1, channels), 128, np.uint8)).numpy()


def replace_invalid(
    images: tf.Tensor, labels: tf.Tensor, valid: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Puts other images of the batch in the places of invalid ones.

    So a bad record shifts no other record's place in the run. A batch without any valid
    image stays as it is.
    """

    def replace() -> tuple[tf.Tensor, tf.Tensor]:
        good = tf.reshape(tf.where(valid), [-1])
        places = tf.range(tf.shape(valid)[0], dtype=tf.int64)
        chosen = tf.where(valid, places, tf.gather(good, places % tf.size(good, tf.int64)))
        return tf.gather(images, chosen), tf.gather(labels, chosen)

    needed = tf.logical_and(tf.reduce_any(valid), tf.logical_not(tf.reduce_all(valid)))
    new_images, new_labels = tf.cond(needed, replace, lambda: (images, labels))
    return tf.ensure_shape(new_images, images.shape), tf.ensure_shape(new_labels, labels.shape)


def to_channels(image: tf.Tensor, channels: int) -> tf.Tensor:
    """Grey images to three equal channels, colour images to their luminance."""
    if image.shape[-1] == channels:
        return image
    if channels == 3:
        return tf.repeat(image, 3, axis=-1)
    return tf.image.rgb_to_grayscale(image)
