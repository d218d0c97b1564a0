"""Small images in memory: random numbers are drawn for each, pixels computed for a whole batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from effnetv2_tf.data.augment import batch_crops, crop_windows
from effnetv2_tf.data.augmentation import Augmentation
from effnetv2_tf.data.sources import Source

# Pixels. The products' work grows with the cube of a side, that of plain resizing with its square.
LARGEST_SIDE = 64


@dataclass(frozen=True)
class SmallImages:
    """The crops and flips of `augmentation`, in two parts. See `batch_crops`.

    Attributes:
      augmentation: its crop is `"random_resized"` or `"pad"`.
      image_size: of the crops, side in pixels.
    """

    augmentation: Augmentation
    image_size: int

    @classmethod
    def of(cls, source: Source, augmentation: Augmentation, image_size: int) -> SmallImages | None:
        """None where images have to be cropped one by one."""
        if source.image_size is None or max(*source.image_size, image_size) > LARGEST_SIDE:
            return None
        if augmentation.crop not in ("random_resized", "pad"):
            return None
        return cls(augmentation, image_size) if augmentation.interpolation == "bilinear" else None

    @property
    def _padding(self) -> int:
        return self.augmentation.padding(self.image_size)

    def draw(self, crop_seed: tf.Tensor, flip_seed: tf.Tensor) -> Any:
        """The numbers that decide an image's crop, and whether it is mirrored."""
        flip = crop_windows.draw_flip(flip_seed) if self.augmentation.flip else tf.constant(False)
        if self.augmentation.crop == "pad":
            return crop_windows.draw_shift(crop_seed, self._padding), flip
        return crop_windows.draw_window(crop_seed), flip

    def crop(self, images: tf.Tensor, draws: tf.Tensor, flips: tf.Tensor) -> tf.Tensor:
        """uint8 [B, H, W, C] and what was drawn for them to uint8 [B, size, size, C]."""
        if self.augmentation.crop == "pad":
            return batch_crops.pad_and_random_crops(
                images, self.image_size, self._padding, draws, flips
            )
        return batch_crops.random_crops_and_resize(
            images,
            self.image_size,
            draws,
            self.augmentation.crop_area,
            self.augmentation.crop_aspect_ratio,
            flips,
        )
