"""Decoding of image files of any kind to any of the two numbers of channels."""

from __future__ import annotations

import tensorflow as tf

from effnetv2_tf.data.sources.validity import PNG_START

_CMYK = 4  # channels


def is_jpeg_for(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    """Whether a file is a JPEG that TensorFlow's JPEG decoders turn into so many channels.

    They turn CMYK into colours, but not into grey.

    Args:
      encoded: scalar string tensor, the bytes of a file.
      channels: 1 or 3.
    """
    is_jpeg = tf.io.is_jpeg(encoded)
    if channels != 1:
        return is_jpeg
    return tf.cond(
        is_jpeg,
        lambda: tf.io.extract_jpeg_shape(encoded)[2] != _CMYK,
        lambda: tf.constant(False),
    )


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


def decode_other(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    """Any other file, a CMYK JPEG included, to uint8 (height, width, channels).

    TensorFlow has GIF and BMP files in colour only: for one channel, their luminance is taken.
    """
    if channels != 1:
        image = tf.io.decode_image(encoded, channels, expand_animations=False)
    else:
        is_png = tf.equal(tf.strings.substr(encoded, 0, len(PNG_START)), PNG_START)
        image = tf.cond(is_png, lambda: tf.io.decode_png(encoded, 1), lambda: _luminance(encoded))
    image.set_shape((None, None, channels))
    return image


def _luminance(encoded: tf.Tensor) -> tf.Tensor:
    colours = tf.io.decode_image(encoded, 3, expand_animations=False)
    colours.set_shape((None, None, 3))
    return tf.image.rgb_to_grayscale(colours)
