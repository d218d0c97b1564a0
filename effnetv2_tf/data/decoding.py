"""Encoded bytes to pixels, with bad records noticed rather than fatal."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from effnetv2_tf.data.encoded import decode_other, is_jpeg_for
from effnetv2_tf.data.sources.bad_records import BadRecords
from effnetv2_tf.data.sources.base import Source
from effnetv2_tf.data.sources.validity import is_valid_image

_ABOUT_AN_IMAGE = re.compile(r"jpeg|png|gif|bmp|channels inherent", re.IGNORECASE)
_FILES_AT_ONCE = 256


def decode_pixels(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    """A whole JPEG, PNG, GIF or BMP file to uint8 (height, width, channels).

    JPEG files give the pixels that browsers, Pillow and PyTorch decode: TensorFlow's default
    is a faster, coarser cosine transform. Their orientation tag is ignored, as everywhere here.
    """
    image = tf.cond(
        is_jpeg_for(encoded, channels),
        lambda: tf.io.decode_jpeg(encoded, channels, dct_method="INTEGER_ACCURATE"),
        lambda: decode_other(encoded, channels),
    )
    return tf.ensure_shape(image, (None, None, channels))


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
    data, valid = tf.cond(is_valid_image(encoded), lambda: (encoded, tf.constant(True)), stand_in)
    image = decode(data) if decode else decode_pixels(data, channels)
    image.set_shape(
        (*image.shape[:2], channels) if image.shape.rank == 3 else (None, None, channels)
    )
    return image, valid


def find_broken_file(source: Source, message: str) -> str | None:
    """The image file that an error of TensorFlow's decoders is about, which does not tell.

    All files are decoded, until one fails.

    Args:
      source: whose files may be meant.
      message: of the error.
    """
    files = source.image_files() if _ABOUT_AN_IMAGE.search(message or "") else ()
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(files), _FILES_AT_ONCE):
            some = files[start : start + _FILES_AT_ONCE]
            decoded = pool.map(functools.partial(_decodes, source.info.channels), some)
            for file, decodes in zip(some, decoded, strict=True):
                if not decodes:
                    return file
    return None


def _decodes(channels: int, file: str) -> bool:
    try:
        decode_pixels(tf.io.read_file(file), channels)
    except tf.errors.OpError:
        return False
    return True


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
