"""Which image it was that TensorFlow could not decode: its decoders do not tell."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf

from effnetv2_tf.data.decoding import is_decodable
from effnetv2_tf.data.encoded import decode_pixels
from effnetv2_tf.data.sources.base import Example, Source
from effnetv2_tf.errors import TrainingFailure, operation_fault

_ABOUT_AN_IMAGE = re.compile(r"jpeg|png|gif|bmp|channels inherent", re.IGNORECASE)
_IMAGES_AT_ONCE = 256
_MANY = 10_000  # images, which take half a minute to look through


@contextlib.contextmanager
def broken_images_named(source: Source) -> Iterator[None]:
    """Turns TensorFlow's error about an image of `source` within the block into one that names it.

    Raises:
      TrainingFailure: one line, with the image's name.
    """
    try:
        yield
    except tf.errors.OpError as error:
        name = next(broken_images(source, error), None)
        if name is None:
            raise
        advice = "repair or remove it and run the same command again"
        raise TrainingFailure(f"{describe(name, error)}; {advice}") from error


def describe(name: str, cause: tf.errors.OpError) -> str:
    """What is said of an image that cannot be decoded."""
    return f"data: {name}: cannot be decoded ({operation_fault(cause.message)})"


def broken_images(source: Source, cause: tf.errors.OpError) -> Iterator[str]:
    """The names of images that look whole, are not refused and cannot be decoded.

    All images are decoded, in stored order.

    Args:
      source: whose images may be meant.
      cause: the error; if it is not one of TensorFlow's decoders, nothing is looked at.
    """
    info = source.info
    if not (info.encoded and _ABOUT_AN_IMAGE.search(cause.message or "")):
        return
    if info.num_examples > _MANY:
        print(f"Looking for broken images among the {info.num_examples:,} of {info.name}.")

    @tf.autograph.experimental.do_not_convert
    def bytes_and_name(example: Example) -> tuple[tf.Tensor, tf.Tensor]:
        image, name = example["image"], example["name"]
        return tf.where(is_decodable(image, name, source.bad_records), image, ""), name

    examples = source.epoch(0, seed=0, start=0, shuffle=False)
    batches = examples.map(bytes_and_name).batch(_IMAGES_AT_ONCE).prefetch(1)
    decodes = functools.partial(_decodes, info.channels)
    with ThreadPoolExecutor() as pool:
        for images, names in batches.as_numpy_iterator():
            for name, decoded in zip(names, pool.map(decodes, images), strict=True):
                if not decoded:
                    yield name.decode(errors="surrogateescape")


def _decodes(channels: int, encoded: bytes) -> bool:
    try:
        if encoded:
            decode_pixels(tf.constant(encoded), channels)
    except tf.errors.OpError:
        return False
    return True
