"""Which image it was that TensorFlow could not decode: its decoders do not tell."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf

from effnetv2_tf.data.encoded import decode_pixels
from effnetv2_tf.data.sources.base import Example, Source
from effnetv2_tf.data.sources.validity import is_valid_image
from effnetv2_tf.errors import TrainingFailure, operation_fault

_ABOUT_AN_IMAGE = re.compile(r"jpeg|png|gif|bmp|channels inherent", re.IGNORECASE)
_IMAGES_AT_ONCE = 256
_MANY = 10_000  # images, which take half a minute to look through


@contextlib.contextmanager
def broken_images_named(*sources: Source) -> Iterator[None]:
    """Turns TensorFlow's error about an image of `sources` within the block into one that names it.

    Raises:
      TrainingFailure: one line, with the image's name.
    """
    try:
        yield
    except tf.errors.OpError as error:
        report_broken_image(sources, error)
        raise


def report_broken_image(sources: Iterable[Source], cause: tf.errors.OpError) -> None:
    """Raises a one-line TrainingFailure if `cause` is an image of `sources`, which it names."""
    for source in sources:
        name = find_broken_image(source, cause.message)
        if name is not None:
            raise TrainingFailure(
                f"data: {name}: cannot be decoded ({operation_fault(cause.message)}); repair "
                "or remove it and run the same command again"
            ) from cause


def find_broken_image(source: Source, message: str | None) -> str | None:
    """The name of the image that an error of TensorFlow's decoders is about.

    All images are decoded, in stored order, until one fails.

    Args:
      source: whose images may be meant.
      message: of the error.
    """
    info = source.info
    if not (info.encoded and _ABOUT_AN_IMAGE.search(message or "")):
        return None
    if info.num_examples > _MANY:
        print(f"Looking for the broken image among the {info.num_examples:,} of {info.name}.")
    examples = source.epoch(0, seed=0, start=0, shuffle=False)
    batches = examples.map(_bytes_and_name).batch(_IMAGES_AT_ONCE).prefetch(1)
    decodes = functools.partial(_decodes, info.channels)
    with ThreadPoolExecutor() as pool:
        for images, names in batches.as_numpy_iterator():
            for name, decoded in zip(names, pool.map(decodes, images), strict=True):
                if not decoded:
                    return name.decode(errors="surrogateescape")
    return None


def _bytes_and_name(example: Example) -> tuple[tf.Tensor, tf.Tensor]:
    """Nothing in place of bytes that are bad beforehand: no decoder is given those."""
    image = example["image"]
    return tf.where(is_valid_image(image), image, ""), example["name"]


def _decodes(channels: int, encoded: bytes) -> bool:
    try:
        if encoded:
            decode_pixels(tf.constant(encoded), channels)
    except tf.errors.OpError:
        return False
    return True
