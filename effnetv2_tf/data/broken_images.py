"""Which image it was that TensorFlow could not decode: its decoders do not tell."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterable, Iterator
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
def broken_images_named(*sources: Source) -> Iterator[None]:
    """Turns TensorFlow's error about an image of `sources` within the block into one that names it.

    Raises:
      TrainingFailure: one line, with the image's name.
    """
    try:
        yield
    except tf.errors.OpError as error:
        broken = find_broken_image(sources, error)
        if broken is None:
            raise
        advice = "repair or remove it and run the same command again"
        raise TrainingFailure(f"{describe(broken, error)}; {advice}") from error


def describe(broken: tuple[Source, str], cause: tf.errors.OpError) -> str:
    """What is said of an image that `find_broken_image` found."""
    return f"data: {broken[1]}: cannot be decoded ({operation_fault(cause.message)})"


def find_broken_image(
    sources: Iterable[Source],
    cause: tf.errors.OpError,
    first: tuple[Source, tf.data.Dataset] | None = None,
) -> tuple[Source, str] | None:
    """The image that an error of TensorFlow's decoders is about: whose it is, and its name.

    All images are decoded, in stored order, until one fails.

    Args:
      sources: whose images may be meant.
      cause: the error.
      first: a source and those of its examples that are to be looked at before all others.

    Returns:
      None if the error is not about an image.
    """
    if not _ABOUT_AN_IMAGE.search(cause.message or ""):
        return None
    encoded = [source for source in sources if source.info.encoded]
    if first is not None and first[0] in encoded:
        name = _find_among(first[1], first[0])
        if name is not None:
            return first[0], name
    for source in encoded:
        if source.info.num_examples > _MANY:
            about = f"{source.info.num_examples:,} of {source.info.name}"
            print(f"Looking for the broken image among the {about}.")
        name = _find_among(source.epoch(0, seed=0, start=0, shuffle=False), source)
        if name is not None:
            return source, name
    return None


def _find_among(examples: tf.data.Dataset, source: Source) -> str | None:
    """The name of the first that looks whole, is not refused and cannot be decoded."""

    def bytes_and_name(example: Example) -> tuple[tf.Tensor, tf.Tensor]:
        image, name = example["image"], example["name"]
        return tf.where(is_decodable(image, name, source.bad_records), image, ""), name

    batches = examples.map(bytes_and_name).batch(_IMAGES_AT_ONCE).prefetch(1)
    decodes = functools.partial(_decodes, source.info.channels)
    with ThreadPoolExecutor() as pool:
        for images, names in batches.as_numpy_iterator():
            for name, decoded in zip(names, pool.map(decodes, images), strict=True):
                if not decoded:
                    return name.decode(errors="surrogateescape")
    return None


def _decodes(channels: int, encoded: bytes) -> bool:
    try:
        if encoded:
            decode_pixels(tf.constant(encoded), channels)
    except tf.errors.OpError:
        return False
    return True
