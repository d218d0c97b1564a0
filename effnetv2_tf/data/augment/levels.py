"""Augmentation levels: from a magnitude on the 0 to 10 scale to each operation's own unit.

AutoAugment and RandAugment share this mapping and the dispatch to one of the operations.
Source: AutoAugment (arXiv 1805.09501) table 6 and RandAugment (arXiv 1909.13719), with the
constants of the EfficientNet reference code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf

from effnetv2_tf.data.augment import ops

MAX_LEVEL = 10.0

OP_NAMES = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "SolarizeAdd",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Cutout",
)


@dataclass(frozen=True)
class LevelScale:
    """What level 10 means for the operations whose unit is a pixel.

    Attributes:
      translate_pixels: Distance of TranslateX and TranslateY.
      cutout_half_size_pixels: Half the side of Cutout's square.
      reference_size: Image size in pixels that the two are meant for. When the shorter side of
        an image is less, both are scaled by shorter side / reference_size.
    """

    translate_pixels: float
    cutout_half_size_pixels: float
    reference_size: int

    def image_scale(self, image: tf.Tensor) -> tf.Tensor:
        """Returns the factor for distances in `image`: 1, or less for a small image."""
        shorter_side = tf.reduce_min(tf.shape(image)[:2])
        return tf.minimum(tf.cast(shorter_side, tf.float32) / self.reference_size, 1.0)


def level_to_argument(op_name: str, level: float, scale: LevelScale) -> float:
    """Returns the operation's argument at `level`, before sign and image scale.

    Levels above 10 extrapolate. Units: Rotate degrees; Posterize bits kept; Solarize threshold
    and SolarizeAdd grey levels; Color, Contrast, Brightness, Sharpness blend factor; shears a
    slope; translations pixels; Cutout half-size in pixels; the others have none and get 0.

    Posterize keeps `int(level / 10 * 4)` bits, as the reference code does: a higher level
    keeps *more* bits and thus distorts less (later code of others uses 4 minus that). 0 bits
    would be a black image and more than 8 do not exist: clipped to 1 to 8.
    Solarize's threshold `int(level / 10 * 256)` likewise distorts less as the level rises.

    Raises:
      ValueError: `op_name` is not one of `OP_NAMES`.
    """
    share = level / MAX_LEVEL
    if op_name in ("AutoContrast", "Equalize", "Invert"):
        return 0.0
    if op_name in ("Color", "Contrast", "Brightness", "Sharpness"):
        return share * 1.8 + 0.1
    if op_name in ("ShearX", "ShearY"):
        return share * 0.3
    if op_name in ("TranslateX", "TranslateY"):
        return share * scale.translate_pixels
    if op_name == "Rotate":
        return share * 30.0
    if op_name == "Posterize":
        return float(min(max(int(share * 4), 1), 8))
    if op_name == "Solarize":
        return float(int(share * 256))
    if op_name == "SolarizeAdd":
        return float(int(share * 110))
    if op_name == "Cutout":
        return float(int(share * scale.cutout_half_size_pixels))
    raise ValueError(f"op_name must be one of {', '.join(OP_NAMES)}, received {op_name!r}")


@dataclass(frozen=True)
class OpDraws:
    """The random numbers of one operation: three scalars, float32 from [0, 1)."""

    sign: tf.Tensor
    center_y: tf.Tensor
    center_x: tf.Tensor


def apply_op(
    image: tf.Tensor,
    op_names: Sequence[str],
    op_index: tf.Tensor,
    argument: tf.Tensor,
    draws: OpDraws,
    scale: LevelScale,
    fill: int,
) -> tf.Tensor:
    """Applies one operation, chosen at run time; the others are not computed.

    Args:
      image: uint8 [H, W, C].
      op_names: The operations to choose from.
      op_index: int32 scalar, index into `op_names`; `len(op_names)` returns the image as it is.
      argument: float32 scalar, as from `level_to_argument`.
      draws: Random sign (of rotate, shear, translate) and random centre (of cutout).
      scale: Gives the factor for distances in small images.
      fill: Grey level, 0 to 255, of pixels from outside the image.
    """
    table = _branch_table(image, argument, draws, scale, fill)
    branches = [table[name] for name in op_names] + [lambda: image]
    result = tf.switch_case(op_index, branches)
    result.set_shape(image.shape)
    return result


def _branch_table(
    image: tf.Tensor, argument: tf.Tensor, draws: OpDraws, scale: LevelScale, fill: int
) -> dict[str, Callable[[], tf.Tensor]]:
    def signed() -> tf.Tensor:
        return tf.where(draws.sign < 0.5, -argument, argument)

    def signed_distance() -> tf.Tensor:
        return signed() * scale.image_scale(image)

    def cut() -> tf.Tensor:
        size = tf.cast(tf.shape(image)[:2], tf.float32)
        center_y = tf.cast(draws.center_y * size[0], tf.int32)
        center_x = tf.cast(draws.center_x * size[1], tf.int32)
        half_size = tf.cast(tf.round(argument * scale.image_scale(image)), tf.int32)
        return ops.cutout(image, center_y, center_x, half_size, fill)

    return {
        "AutoContrast": lambda: ops.autocontrast(image),
        "Equalize": lambda: ops.equalize(image),
        "Invert": lambda: ops.invert(image),
        "Rotate": lambda: ops.rotate(image, signed(), fill),
        "Posterize": lambda: ops.posterize(image, argument),
        "Solarize": lambda: ops.solarize(image, argument),
        "SolarizeAdd": lambda: ops.solarize_add(image, argument),
        "Color": lambda: ops.color(image, argument),
        "Contrast": lambda: ops.contrast(image, argument),
        "Brightness": lambda: ops.brightness(image, argument),
        "Sharpness": lambda: ops.sharpness(image, argument),
        "ShearX": lambda: ops.shear_x(image, signed(), fill),
        "ShearY": lambda: ops.shear_y(image, signed(), fill),
        "TranslateX": lambda: ops.translate_x(image, signed_distance(), fill),
        "TranslateY": lambda: ops.translate_y(image, signed_distance(), fill),
        "Cutout": cut,
    }
