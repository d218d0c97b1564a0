"""AutoAugment (arXiv 1805.09501): learned pairs of operations with their probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from effnetv2_tf.data.augment._common import (
    require_image,
    require_integer,
    require_number,
    uniform,
)
from effnetv2_tf.data.augment.levels import LevelScale, OpDraws, apply_op, level_to_argument
from effnetv2_tf.errors import suggestion

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


# The ImageNet policy that the EfficientNet reference code calls "v0".
V0_POLICY = (
    SubPolicy(PolicyStep("Equalize", 0.8, 1), PolicyStep("ShearY", 0.8, 4)),
    SubPolicy(PolicyStep("Color", 0.4, 9), PolicyStep("Equalize", 0.6, 3)),
    SubPolicy(PolicyStep("Color", 0.4, 1), PolicyStep("Rotate", 0.6, 8)),
    SubPolicy(PolicyStep("Solarize", 0.8, 3), PolicyStep("Equalize", 0.4, 7)),
    SubPolicy(PolicyStep("Solarize", 0.4, 2), PolicyStep("Solarize", 0.6, 2)),
    SubPolicy(PolicyStep("Color", 0.2, 0), PolicyStep("Equalize", 0.8, 8)),
    SubPolicy(PolicyStep("Equalize", 0.4, 8), PolicyStep("SolarizeAdd", 0.8, 3)),
    SubPolicy(PolicyStep("ShearX", 0.2, 9), PolicyStep("Rotate", 0.6, 8)),
    SubPolicy(PolicyStep("Color", 0.6, 1), PolicyStep("Equalize", 1.0, 2)),
    SubPolicy(PolicyStep("Invert", 0.4, 9), PolicyStep("Rotate", 0.6, 0)),
    SubPolicy(PolicyStep("Equalize", 1.0, 9), PolicyStep("ShearY", 0.6, 3)),
    SubPolicy(PolicyStep("Color", 0.4, 7), PolicyStep("Equalize", 0.6, 0)),
    SubPolicy(PolicyStep("Posterize", 0.4, 6), PolicyStep("AutoContrast", 0.4, 7)),
    SubPolicy(PolicyStep("Solarize", 0.6, 8), PolicyStep("Color", 0.6, 9)),
    SubPolicy(PolicyStep("Solarize", 0.2, 4), PolicyStep("Rotate", 0.8, 9)),
    SubPolicy(PolicyStep("Rotate", 1.0, 7), PolicyStep("TranslateY", 0.8, 9)),
    SubPolicy(PolicyStep("ShearX", 0.0, 0), PolicyStep("Solarize", 0.8, 4)),
    SubPolicy(PolicyStep("ShearY", 0.8, 0), PolicyStep("Color", 0.6, 4)),
    SubPolicy(PolicyStep("Color", 1.0, 0), PolicyStep("Rotate", 0.6, 2)),
    SubPolicy(PolicyStep("Equalize", 0.8, 4), PolicyStep("Equalize", 0.0, 8)),
    SubPolicy(PolicyStep("Equalize", 1.0, 4), PolicyStep("AutoContrast", 0.6, 2)),
    SubPolicy(PolicyStep("ShearY", 0.4, 7), PolicyStep("SolarizeAdd", 0.6, 7)),
    SubPolicy(PolicyStep("Posterize", 0.8, 2), PolicyStep("Solarize", 0.6, 10)),
    SubPolicy(PolicyStep("Solarize", 0.6, 8), PolicyStep("Equalize", 0.6, 1)),
    SubPolicy(PolicyStep("Color", 0.8, 6), PolicyStep("Rotate", 0.4, 5)),
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
            raise ValueError(
                f"AutoAugment: policy must be one of {', '.join(POLICIES)}, "
                f"received {self.policy!r}{suggestion(str(self.policy), POLICIES)}"
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
