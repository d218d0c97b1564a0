"""RandAugment (arXiv 1909.13719): a few random operations, all at one magnitude."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from effnetv2_tf.data.augment._common import (
    require_image,
    require_integer,
    require_number,
    uniform,
)
from effnetv2_tf.data.augment.levels import (
    OP_NAMES,
    LevelScale,
    OpDraws,
    apply_op,
    level_to_argument,
)

_SALT = 0x52A7D1


@dataclass(frozen=True)
class RandAugment:
    """Applies `num_layers` operations in turn, each drawn uniformly from the sixteen.

    Calling it with an image and a seed is a pure function of both. Only the drawn operations
    are computed. Rotate, shear and translate get a random sign, Cutout a random centre.

    Attributes:
      num_layers: Operations per image (N in the paper); 0 is the identity.
      magnitude: Level of all operations on the scale where 10 is full strength (M in the
        paper), >= 0; above 10 extrapolates, see `levels.level_to_argument` for every unit and
        for Posterize and Solarize, which distort less as the level rises.
      fill: Grey level of pixels from outside the image, 0 to 255.
      reference_size: Translate (100 px at level 10) and Cutout (half-size 40 px) are meant for
        images of this size in pixels and shrink with a smaller shorter side.

    Raises:
      ValueError: An argument is out of range; the message names it.
    """

    num_layers: int = 2
    magnitude: float = 10.0
    fill: int = 128
    reference_size: int = 224

    def __post_init__(self) -> None:
        require_integer("RandAugment", "num_layers", self.num_layers)
        require_number("RandAugment", "magnitude", self.magnitude)
        require_integer("RandAugment", "fill", self.fill, high=255)
        require_integer("RandAugment", "reference_size", self.reference_size, low=1)

    def __call__(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns the augmented image.

        Args:
          image: uint8 [H, W, C], C = 1 or 3; H and W may be unknown until run time.
          seed: int32 or int64 tensor of shape (2,).

        Raises:
          ValueError: `image` or `seed` has another dtype or shape.
        """
        image = require_image(image)
        draws = uniform([self.num_layers, 4], seed, _SALT)
        scale = LevelScale(
            translate_pixels=100.0,
            cutout_half_size_pixels=40.0,
            reference_size=self.reference_size,
        )
        arguments = tf.constant(
            [level_to_argument(name, self.magnitude, scale) for name in OP_NAMES], tf.float32
        )
        for layer_draws in tf.unstack(draws):
            choice, *others = tf.unstack(layer_draws)
            op_index = tf.cast(choice * len(OP_NAMES), tf.int32)
            argument = tf.gather(arguments, op_index)
            image = apply_op(
                image, OP_NAMES, op_index, argument, OpDraws(*others), scale, self.fill
            )
        return image
