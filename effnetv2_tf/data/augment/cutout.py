"""Cutout alone, as the fine-tuning recipe uses it."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from effnetv2_tf.data.augment import ops
from effnetv2_tf.data.augment._common import require_image, require_number, uniform

_SALT = 0x1C3B7


@dataclass(frozen=True)
class Cutout:
    """Fills one square with grey (DeVries & Taylor, arXiv 1708.04552).

    Calling it with an image and a seed is a pure function of both.

    Attributes:
      half_share: Half the square's side, as a share of the image's shorter side. By default it
        is that of google/automl's fine-tuning, and of the paper's squares on CIFAR-10.

    Raises:
      ValueError: An argument is out of range; the message names it.
    """

    half_share: float = 0.25

    def __post_init__(self) -> None:
        require_number("Cutout", "half_share", self.half_share, high=1.0)

    def __call__(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns the image, uint8 [H, W, C], with the square around a random centre filled."""
        image = require_image(image)
        sides = tf.shape(image)[:2]
        center = tf.cast(uniform([2], seed, _SALT) * tf.cast(sides, tf.float32), tf.int32)
        half = self.half_share * tf.cast(tf.reduce_min(sides), tf.float32)
        half = tf.maximum(tf.cast(tf.round(half), tf.int32), 1)
        return ops.cutout(image, center[0], center[1], half)
