"""AutoAugment (arXiv 1805.09501): learned pairs of operations with their probabilities."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import tensorflow as tf

from effnetv2_tf.data.augment._common import (
    require_image,
    require_integer,
    require_number,
    uniform,
)
from effnetv2_tf.data.augment.levels import LevelScale, OpDraws, apply_op, level_to_argument

_SALT = 0x3C91F5


@dataclass(frozen=True)
class PolicyStep:
    """One operation of a sub-policy.

    Attributes:
      op_name: One of `levels.OP_NAMES`.
      probability: Of applying it, 0 to 1.
      magnitude: Level on the 0 to 10 scale.
    """

    op_name: str
    probability: float
    magnitude: int


@dataclass(frozen=True)
class SubPolicy:
    """Two steps applied in turn."""

    first: PolicyStep
    second: PolicyStep


def _pair(
    name_1: str, probability_1: float, magnitude_1: int, name_2: str, probability_2: float, magnitude_2: int
) -> SubPolicy:
    return SubPolicy(
        first=PolicyStep(name_1, probability_1, magnitude_1),
        second=PolicyStep(name_2, probability_2, magnitude_2),
    )


# The ImageNet policy that the EfficientNet reference code calls "v0".
V0_POLICY = (
    _pair("Equalize", 0.8, 1, "ShearY", 0.8, 4),
    _pair("Color", 0.4, 9, "Equalize", 0.6, 3),
    _pair("Color", 0.4, 1, "Rotate", 0.6, 8),
    _pair("Solarize", 0.8, 3, "Equalize", 0.4, 7),
    _pair("Solarize", 0.4, 2, "Solarize", 0.6, 2),
    _pair("Color", 0.2, 0, "Equalize", 0.8, 8),
    _pair("Equalize", 0.4, 8, "SolarizeAdd", 0.8, 3),
    _pair("ShearX", 0.2, 9, "Rotate", 0.6, 8),
    _pair("Color", 0.6, 1, "Equalize", 1.0, 2),
    _pair("Invert", 0.4, 9, "Rotate", 0.6, 0),
    _pair("Equalize", 1.0, 9, "ShearY", 0.6, 3),
    _pair("Color", 0.4, 7, "Equalize", 0.6, 0),
    _pair("Posterize", 0.4, 6, "AutoContrast", 0.4, 7),
    _pair("Solarize", 0.6, 8, "Color", 0.6, 9),
    _pair("Solarize", 0.2, 4, "Rotate", 0.8, 9),
    _pair("Rotate", 1.0, 7, "TranslateY", 0.8, 9),
    _pair("ShearX", 0.0, 0, "Solarize", 0.8, 4),
    _pair("ShearY", 0.8, 0, "Color", 0.6, 4),
    _pair("Color", 1.0, 0, "Rotate", 0.6, 2),
    _pair("Equalize", 0.8, 4, "Equalize", 0.0, 8),
    _pair("Equalize", 1.0, 4, "AutoContrast", 0.6, 2),
    _pair("ShearY", 0.4, 7, "SolarizeAdd", 0.6, 7),
    _pair("Posterize", 0.8, 2, "Solarize", 0.6, 10),
    _pair("Solarize", 0.6, 8, "Equalize", 0.6, 1),
    _pair("Color", 0.8, 6, "Rotate", 0.4, 5),
)

POLICIES = {"v0": V0_POLICY}


@dataclass(frozen=True)
class AutoAugment:
    """Applies one sub-policy of a learned policy, drawn uniformly.

    Calling it with an image and a seed is a pure function of both. Only the operations that
    are applied are computed.

    Attributes:
      policy: "v0", the ImageNet policy of 25 sub-policies.
      fill: Grey level of pixels from outside the image, 0 to 255.
      reference_size: Image size in pixels that the translation is meant for; it shrinks with a
        smaller shorter side.
      translate_pixels: Distance at level 10. The reference code's 250 px moves v0's one
        translation (level 9: 225 px) out of a 224 px image; the paper's range is 150 px.

    Raises:
      ValueError: An argument is out of range; the message names it.
    """

    policy: str = "v0"
    fill: int = 128
    reference_size: int = 224
    translate_pixels: float = 250.0

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            nearest = difflib.get_close_matches(str(self.policy), POLICIES, n=1, cutoff=0.0)
            raise ValueError(
                f"AutoAugment: policy must be one of {', '.join(POLICIES)}, "
                f"received {self.policy!r}; did you mean {nearest[0]!r}?"
            )
        require_integer("AutoAugment", "fill", self.fill, high=255)
        require_integer("AutoAugment", "reference_size", self.reference_size, low=1)
        require_number("AutoAugment", "translate_pixels", self.translate_pixels)

    def __call__(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns the augmented image.

        Args:
          image: uint8 [H, W, C], C = 1 or 3; H and W may be unknown until run time.
          seed: int32 or int64 tensor of shape (2,).

        Raises:
          ValueError: `image` or `seed` has another dtype or shape.
        """
        image = require_image(image)
        sub_policies = POLICIES[self.policy]
        draws = uniform([9], seed, _SALT)
        chosen = tf.cast(draws[0] * len(sub_policies), tf.int32)
        image = self._apply([pair.first for pair in sub_policies], chosen, image, draws[1:5])
        return self._apply([pair.second for pair in sub_policies], chosen, image, draws[5:9])

    def _apply(
        self, steps: list[PolicyStep], chosen: tf.Tensor, image: tf.Tensor, draws: tf.Tensor
    ) -> tf.Tensor:
        """Applies step number `chosen` with its probability; `draws` are four numbers."""
        scale = LevelScale(
            translate_pixels=self.translate_pixels,
            cutout_half_size_pixels=100.0,
            reference_size=self.reference_size,
        )
        op_names = sorted({step.op_name for step in steps})
        op_indices = tf.constant([op_names.index(step.op_name) for step in steps])
        probabilities = tf.constant([step.probability for step in steps], tf.float32)
        arguments = tf.constant(
            [level_to_argument(step.op_name, step.magnitude, scale) for step in steps], tf.float32
        )
        is_applied = draws[0] < probabilities[chosen]
        op_index = tf.where(is_applied, op_indices[chosen], len(op_names))
        op_draws = OpDraws(draws[1], draws[2], draws[3])
        return apply_op(image, op_names, op_index, arguments[chosen], op_draws, scale, self.fill)
