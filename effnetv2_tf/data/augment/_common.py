"""What the augmentations share: seed salting, rounding to uint8 and argument checks."""

from __future__ import annotations

import math
from numbers import Real

import tensorflow as tf


def salted_seed(seed: tf.Tensor, salt: int) -> tf.Tensor:
    """Returns `seed` with its second number XOR-ed by `salt`.

    Every random function salts the caller's seed with a constant of its own, so that passing
    one seed per image to crop, flip and RandAugment gives independent draws. XOR is enough:
    TensorFlow's stateless generators scramble the seed.

    Args:
      seed: int32 or int64 tensor of shape (2,).
      salt: Number below 2**31.
    """
    seed = tf.convert_to_tensor(seed, name="seed")
    if seed.dtype not in (tf.int32, tf.int64) or not seed.shape.is_compatible_with([2]):
        raise ValueError(
            "seed must be an int32 or int64 tensor of shape (2,), "
            f"received dtype {seed.dtype.name} and shape {seed.shape}"
        )
    return tf.bitwise.bitwise_xor(seed, tf.constant([0, salt], seed.dtype))


def uniform(shape: list[int], seed: tf.Tensor, salt: int) -> tf.Tensor:
    """Returns float32 draws from [0, 1), a pure function of `seed` and `salt`."""
    return tf.random.stateless_uniform(shape, salted_seed(seed, salt))


def require_image(image: tf.Tensor) -> tf.Tensor:
    """Returns `image` as a tensor; raises ValueError unless it is uint8 [H, W, 1 or 3]."""
    image = tf.convert_to_tensor(image, name="image")
    if image.dtype != tf.uint8 or image.shape.rank != 3 or image.shape[-1] not in (1, 3):
        raise ValueError(
            "image must be a uint8 tensor of shape [height, width, 1 or 3], "
            f"received dtype {image.dtype.name} and shape {image.shape}"
        )
    return image


def require_number(
    owner: str, name: str, value: float, low: float = 0.0, high: float = math.inf
) -> None:
    """Raises ValueError unless `value` is a finite Python number in [low, high]."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not low <= value <= high:
        bounds = f">= {low}" if high == math.inf else f"between {low} and {high}"
        raise ValueError(f"{owner}: {name} must be a finite number {bounds}, received {value!r}")


def require_integer(
    owner: str, name: str, value: int, low: int = 0, high: int | None = None
) -> None:
    """Raises ValueError unless `value` is a Python int in [low, high]."""
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if not is_integer or value < low or (high is not None and value > high):
        bounds = f">= {low}" if high is None else f"between {low} and {high}"
        raise ValueError(f"{owner}: {name} must be an integer {bounds}, received {value!r}")


def truncate_to_uint8(values: tf.Tensor) -> tf.Tensor:
    """Returns float `values` clipped to [0, 255] and truncated, as Pillow's blend does."""
    return tf.cast(tf.clip_by_value(values, 0.0, 255.0), tf.uint8)


def round_to_uint8(values: tf.Tensor, overshoots: bool = True) -> tf.Tensor:
    """Returns float `values` rounded to the nearest grey level.

    Those outside [0, 255] are clipped if there can be any (`overshoots`): bicubic interpolation
    leaves the range of what it interpolates, bilinear does not.
    """
    rounded = tf.round(values)
    if overshoots:
        rounded = tf.clip_by_value(rounded, 0.0, 255.0)
    return tf.cast(rounded, tf.uint8)
