"""What the training pipeline does to images besides the scheduled magnitudes: plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Augmentation:
    """What happens to training images besides the scheduled magnitudes.

    Attributes:
      crop: `"random_resized"` (a random part of the image, stretched to the square),
        `"pad"` (resized, padded and cropped back: for small images), `"center"` (the
        reference's centre crop for evaluation) or `"none"`.
      crop_area: smallest and largest part of the area, for random resized crops; a stage's
        `crop_area_min` and `crop_area_max` go first.
      crop_aspect_ratio: narrowest and widest, likewise.
      crop_padding: for `"pad"`, pixels on each side of a 32-pixel image; scaled with it. For
        `"center"`, see `Preprocessing`.
      flip: mirrors half of the images.
      policy: `"randaugment"` (with the stage's magnitude), `"autoaugment"`, `"cutout"` or
        `"none"`.
      randaugment_layers: operations on one image.
      interpolation: of resizing.
      mixing: of mixup and CutMix, where the stage has both: `"either"` for each batch one of
        them; `"both"`, one after the other, see `mixup_then_cutmix`.
      cutmix_lambda: for `"both"`: CutMix's shares by Graphcore's distribution, in all stages.
    """

    crop: Literal["random_resized", "pad", "center", "none"] = "random_resized"
    crop_area: tuple[float, float] = (0.08, 1.0)
    crop_aspect_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    crop_padding: int = 4
    flip: bool = True
    policy: Literal["randaugment", "autoaugment", "cutout", "none"] = "randaugment"
    randaugment_layers: int = 2
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mixing: Literal["either", "both"] = "either"
    cutmix_lambda: float | None = None

    def __post_init__(self) -> None:
        if self.cutmix_lambda is not None and self.mixing != "both":
            raise ValueError(
                f"cutmix_lambda: expected none with mixing {self.mixing!r}, received "
                f"{self.cutmix_lambda}; it belongs to mixing 'both'"
            )

    def padding(self, image_size: int) -> int:
        """Pixels on each side of a square of `image_size`, for `"pad"`."""
        return max(1, round(self.crop_padding * image_size / 32))


# What a recipe without other wishes evaluates with, see `evaluation_dataset`.
EVALUATION = Augmentation(
    "center", crop_padding=32, flip=False, policy="none", interpolation="bicubic"
)
