"""Cutout alone, as the fine-tuning recipe uses it."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from effnetv2_tf.data.augment import ops
from effnetv2_tf.data.augment._common import require_image, require_integer, uniform

_SALT = 0x1C3B7


@dataclass(frozen=True)
class Cutout:
    """Fills one square with grey (DeVries & Taylor, arXiv 1708.04552).

    Calling it with an image and a seed is a pure function of both.

    Attributes:
      half_size: Half the square's side in pixels, for images of `reference_size`.
      reference_size: The square shrinks with a shorter side smaller than this, in pixels.

    Raises:
      ValueError: An argument is out of range; the message names it.
    """

    half_size: int = 40
    reference_size: int = 224

    def __post_init__(self) -> None:
        require_integer("Cutout", "half_size", self.half_size, low=1)
        require_integer("Cutout", "reference_size", self.reference_size, low=1)

    def __call__(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns the image, uint8 [H, W, C], with the square around a random centre filled."""
        image = require_image(image)
        sides = tf.shape(image)[:2]
        center = tf.cast(uniform([2], seed, _SALT) * tf.cast(sides, tf.float32), tf.int32)
        share = tf.minimum(1.0, tf.cast(tf.reduce_min(sides), tf.float32) / self.reference_size)
        half = tf.maximum(tf.cast(tf.round(self.half_size * share), tf.int32), 1)
        return ops.cutout(image, center[0], center[1], half)
