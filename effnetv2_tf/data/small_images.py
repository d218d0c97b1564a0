"""Small images in memory: random numbers are drawn for each, pixels computed for a whole batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from effnetv2_tf.data.augment import batch_crops, crop_windows
from effnetv2_tf.data.augmentation import Augmentation
from effnetv2_tf.data.sources import Source

LARGEST_SIDE = 64  # pixels; beyond, resizing by matrix products takes longer than what it saves


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
        sides = (*(source.image_size or [LARGEST_SIDE + 1]), image_size)
        is_cropped = augmentation.crop in ("random_resized", "pad")
        if max(sides) > LARGEST_SIDE or not is_cropped or augmentation.interpolation != "bilinear":
            return None
        return cls(augmentation, image_size)

    def draw(self, crop_seed: tf.Tensor, flip_seed: tf.Tensor) -> Any:
        """The numbers that decide an image's crop, and whether it is mirrored."""
        if self.augmentation.crop == "pad":
            padding = self.augmentation.padding(self.image_size)
            return crop_windows.draw_shift(crop_seed, padding), self._draw_flip(flip_seed)
        return crop_windows.draw_window(crop_seed), self._draw_flip(flip_seed)

    def _draw_flip(self, seed: tf.Tensor) -> tf.Tensor:
        return crop_windows.draw_flip(seed) if self.augmentation.flip else tf.constant(False)

    def crop(self, images: tf.Tensor, draws: tf.Tensor, flips: tf.Tensor) -> tf.Tensor:
        """uint8 [B, H, W, C] and what was drawn for them to uint8 [B, size, size, C]."""
        if self.augmentation.crop == "pad":
            padding = self.augmentation.padding(self.image_size)
            return batch_crops.pad_and_random_crops(images, self.image_size, padding, draws, flips)
        return batch_crops.random_crops_and_resize(
            images,
            self.image_size,
            draws,
            self.augmentation.crop_area,
            self.augmentation.crop_aspect_ratio,
            flips,
        )
